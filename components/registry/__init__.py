"""What is recorded of training and models, in MLflow: nothing else here imports it."""
