"""Operators, parameters and plugin: the only place besides `dags/` that knows Airflow."""
