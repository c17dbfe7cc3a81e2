"""What runs steps: this machine through `kfp.local`, Airflow, Kubeflow."""
