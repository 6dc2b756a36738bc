FROM edgewright/step-cpu:0.1.0 AS train
ARG VERSION=0
RUN echo "$VERSION" > /tmp/version
