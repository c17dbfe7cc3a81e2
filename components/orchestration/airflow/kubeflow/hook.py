"""The connection to a Kubeflow Pipelines server: `KubeflowHook("kubeflow_default").client()`."""

from typing import Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowException

from components.orchestration.airflow.kubeflow.provider import CONNECTION_TYPE, FIELDS
from components.orchestration.kubeflow.client import Client, KubeflowError, Server, get

DEFAULT_CONNECTION = "kubeflow_default"


class KubeflowHook(BaseHook):
    """Gives clients of the server that a connection names.

    The connection's host is an address (`https://kubeflow.example/pipeline`), or a name beside the
    fields scheme and port; the other fields are those of `provider.FIELDS`.
    """

    conn_name_attr = "conn_id"
    default_conn_name = DEFAULT_CONNECTION
    conn_type = CONNECTION_TYPE
    hook_name = "Kubeflow Pipelines"

    def __init__(self, conn_id: str = DEFAULT_CONNECTION) -> None:
        super().__init__()
        self.conn_id = conn_id

    def client(self) -> Client:
        """A client for tasks, to be used in a `with` statement."""
        return Client(self.server())

    def server(self) -> Server:
        """The server, read from the connection.

        Raises:
            AirflowException: the connection does not name one.
        """
        return server_of(self.get_connection(self.conn_id))

    def instance(self) -> str:
        """The name of this Airflow among those that use the server."""
        return str(self.get_connection(self.conn_id).extra_dejson.get("instance") or "")

    async def aserver(self) -> Server:
        """The same inside an event loop."""
        return server_of(await self.aget_connection(self.conn_id))

    def test_connection(self) -> tuple[bool, str]:
        """Whether the server answers, for the button of the connection's page."""
        try:
            with self.client() as client:
                client.run(_look())
        except (KubeflowError, AirflowException) as error:
            return False, str(error)
        return True, "Kubeflow Pipelines answers"


def _look() -> Any:
    return (yield get("/healthz"))


def server_of(connection: Any) -> Server:
    """The server that a connection names.

    Raises:
        AirflowException: it names none, or has a field that is not known.
    """
    extra = dict(connection.extra_dejson or {})
    unknown = sorted(set(extra) - set(FIELDS))
    if unknown:
        raise AirflowException(
            f"connection {connection.conn_id}: no such field: {', '.join(unknown)}; known are "
            f"{', '.join(FIELDS)}"
        )
    if not connection.host:
        raise AirflowException(
            f"connection {connection.conn_id} names no host: the address of Kubeflow Pipelines"
        )
    url = connection.host
    if "://" not in url:
        port = f":{connection.port}" if connection.port else ""
        url = f"{connection.schema or 'http'}://{url}{port}"
    fields = {name: str(extra.get(name) or "") for name in FIELDS if name != "instance"}
    try:
        return Server(url=url.rstrip("/"), **fields)
    except KubeflowError as error:
        raise AirflowException(f"connection {connection.conn_id}: {error}") from error
