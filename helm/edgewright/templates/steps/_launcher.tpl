{{/* Accounts of Airflow that may start steps. */}}
{{- define "edgewright.launchers" -}}
{{- range .Values.steps.launchers }}
- {kind: ServiceAccount, name: {{ .name }}, namespace: {{ default $.Release.Namespace .namespace }}}
{{- end }}
{{- end -}}

{{/* What Airflow needs in a namespace where it runs steps. Takes root, namespace, name, labels. */}}
{{- define "edgewright.launcher" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels: {{- .labels | nindent 4 }}
rules:
  - {apiGroups: [""], resources: [pods], verbs: [create, get, list, watch, patch, delete]}
  - {apiGroups: [""], resources: [pods/log], verbs: [get, list]}
  - {apiGroups: [""], resources: [events], verbs: [list]}
  # training on several nodes: one Job, and a Service that gives its pods their names
  - {apiGroups: [batch], resources: [jobs], verbs: [create, get, list, delete]}
  - {apiGroups: [""], resources: [services], verbs: [create]}
  # deploy to nodes: one DaemonSet or Deployment a model
  - {apiGroups: [apps], resources: [daemonsets, deployments], verbs: [create, get, update, patch, delete]}
  # edgewright check --against asks what is there; it never reads what a Secret holds
  - {apiGroups: [""], resources: [resourcequotas, serviceaccounts, persistentvolumeclaims], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels: {{- .labels | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ .name }}}
subjects: {{- include "edgewright.launchers" .root | nindent 2 }}
{{- end -}}
