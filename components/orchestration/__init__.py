"""What runs steps: the local Kubeflow runner, and the choice between backends."""
