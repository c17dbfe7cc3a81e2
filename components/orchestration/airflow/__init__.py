"""Airflow operators: the only place besides `dags/` that knows Airflow."""
