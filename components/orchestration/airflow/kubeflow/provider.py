"""What Airflow is told of this distribution, through the entry point `apache_airflow_provider`.

Airflow calls it in every process, so nothing is imported here.
"""

from typing import Any

MODULE = __name__.rpartition(".")[0]
CONNECTION_TYPE = "kubeflow"
# Field of a connection's extra -> label, meaning.
FIELDS = {
    "token_file": (
        "Token file",
        "File with a bearer token, on workers and triggerer; read again when it is refused",
    ),
    "ca_file": ("CA file", "Certificates that the server's is checked with"),
    "namespace": ("User namespace", "Where several users share the server; else empty"),
    "service_account": ("Service account", "Kubernetes account of a run's pods"),
    "pipeline_root": ("Pipeline root", "Where artifacts go, e.g. s3://bucket/pixclip"),
    "page_url": ("Web page", "Address for links, if people reach the server by another one"),
    "instance": (
        "Name of this Airflow",
        "Among those that use the server: equal DAGs of two must not share runs",
    ),
}


def get_provider_info() -> dict[str, Any]:
    """The provider as `airflow/provider_info.schema.json` wants it."""
    return {
        "package-name": "pixclip",
        "name": "Kubeflow Pipelines",
        "description": "Runs pipelines on Kubeflow Pipelines, each once.",
        "operators": [
            {"integration-name": "Kubeflow Pipelines", "python-modules": [f"{MODULE}.operator"]}
        ],
        "hooks": [{"integration-name": "Kubeflow Pipelines", "python-modules": [f"{MODULE}.hook"]}],
        "triggers": [
            {"integration-name": "Kubeflow Pipelines", "python-modules": [f"{MODULE}.trigger"]}
        ],
        "extra-links": [f"{MODULE}.operator.RunLink"],
        "connection-types": [
            {
                "connection-type": CONNECTION_TYPE,
                "hook-class-name": f"{MODULE}.hook.KubeflowHook",
                "hook-name": "Kubeflow Pipelines",
                "conn-fields": {
                    name: {
                        "label": label,
                        "description": description,
                        "schema": {"type": ["string", "null"]},
                    }
                    for name, (label, description) in FIELDS.items()
                },
                "ui-field-behaviour": {
                    "hidden-fields": ["login", "password", "extra"],
                    "relabeling": {"schema": "Scheme"},
                    "placeholders": {
                        "host": "ml-pipeline-ui.kubeflow, or a whole address",
                        "schema": "http",
                        "port": "80",
                        "token_file": "/var/run/secrets/kubeflow/pipelines/token",
                    },
                },
            }
        ],
    }
