"""The registry of models: its steps, the policy, and all that imports MLflow."""
