"""Airflow's provider of Kubeflow Pipelines: hook, operator, trigger, link, connection type."""
