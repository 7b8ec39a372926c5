"""One driver in front of all of them: a worker's hardware class says which one starts it."""

from __future__ import annotations

from collections.abc import Callable

from lattice.core.errors import LatticeError
from lattice.gateway.settings import GatewaySettings
from lattice.gateway.workers.driver_spec import DriverSpec, KubernetesSpec, read_driver
from lattice.gateway.workers.drivers import FleetDriver, Launch, LocalProcesses


class DriverByClass:
    """Hands each worker to local processes or, where the gateway has a cluster, to Kubernetes."""

    def __init__(self, local: FleetDriver, kubernetes: FleetDriver | None = None) -> None:
        self._local, self._kubernetes = local, kubernetes
        self._started: dict[str, FleetDriver] = {}

    def require(self, driver: str) -> None:
        """Raise `driver_invalid` for a class's `driver` with which this gateway could start nothing."""
        self._of(read_driver(driver))

    async def start(self, launch: Launch, on_exit: Callable[[str], None]) -> None:
        """Start a worker where its class says."""
        try:
            driver = self._of(read_driver(launch.driver))
        except LatticeError as error:  # the class is older than the check, or the cluster's setting is gone
            raise OSError(error.message) from None

        def gone(worker_id: str) -> None:
            self._started.pop(worker_id, None)
            on_exit(worker_id)

        self._started[launch.worker_id] = driver
        try:
            await driver.start(launch, gone)
        except BaseException:
            self._started.pop(launch.worker_id, None)
            raise

    async def stop(self, worker_id: str) -> None:
        """Make sure that it ends."""
        driver = self._started.get(worker_id)
        if driver is not None:
            await driver.stop(worker_id)

    def alive(self, worker_id: str) -> bool:
        """Whether it runs, as far as its driver can see."""
        driver = self._started.get(worker_id)
        return driver is not None and driver.alive(worker_id)

    async def resume(self) -> None:
        """End what an earlier process of this gateway left."""
        for driver in self._drivers():
            await driver.resume()

    async def close(self) -> None:
        """End all workers."""
        for driver in self._drivers():
            await driver.close()

    def _drivers(self) -> list[FleetDriver]:
        return [driver for driver in (self._local, self._kubernetes) if driver is not None]

    def _of(self, spec: DriverSpec) -> FleetDriver:
        if not isinstance(spec, KubernetesSpec):
            return self._local
        if self._kubernetes is None:
            said = "This gateway has no cluster: start it with LATTICE_GATEWAY_KUBERNETES_CONFIG."
            raise LatticeError("driver_invalid", said)
        return self._kubernetes


def open_drivers(settings: GatewaySettings, gateway_id: str) -> DriverByClass:
    """Those that the settings allow. Raises `config_invalid` where the cluster's access cannot be read."""
    local = LocalProcesses(settings.data_dir / "workers")
    if not settings.kubernetes_config:
        return DriverByClass(local)
    try:
        from lattice.gateway.workers.kubernetes import KubernetesPods, open_cluster
    except ModuleNotFoundError:
        said = "The setting `kubernetes_config` needs the extra: pip install 'lattice[kubernetes]'."
        raise LatticeError("config_invalid", said) from None
    client = open_cluster(settings.kubernetes_config, settings.kubernetes_namespace)
    return DriverByClass(local, KubernetesPods(client, gateway_id, settings.kubernetes_gateway_url))
