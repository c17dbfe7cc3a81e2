"""Kubeflow pipelines: their definition, what a cluster adds to them, and what starts them."""
