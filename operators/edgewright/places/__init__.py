"""Places where a step's request is answered: a process of its own, a container, a pod. No Airflow.

A place takes a :class:`~edgewright.steps.contract.StepRequest`, has it answered by ``python -m edgewright.steps``
elsewhere, and reads the result from the artifact store at the key that follows from the run. Before that it says what
it cannot honour; nothing is dropped silently.
"""
