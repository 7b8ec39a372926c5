"""`lattice-ctl`: the command line of the person who owns a machine. What a command needs is loaded when it runs."""

from __future__ import annotations

from cyclopts import App

from lattice.cli import ctl_apps, ctl_config, ctl_daemon, ctl_doctor, ctl_models, ctl_relay, ctl_status, ctl_worker


def version() -> str:
    """The installed version."""
    from lattice import __version__

    return __version__


app = App(
    name="lattice-ctl",
    help="Run a local model on this machine and let your own apps reach it, sealed, through a gateway.",
    version=version,
    help_format="plaintext",
)

daemon = App(name="daemon", help="Start, stop and watch the daemon.")
relay = App(name="relay", help="Connect this machine to a gateway.")
models = App(name="models", help="The local model: what is here, and fetching the small default one.")
apps = App(name="apps", help="Whose sealed work this machine opens.")
worker = App(name="worker", help="Evaluate an encrypted model on this machine, for a gateway.")
config = App(name="config", help="The settings and where each comes from.")

for group in (daemon, relay, models, apps, worker, config):
    app.command(group)

app.command(ctl_status.status, name="status")
app.command(ctl_status.ping, name="ping")
app.command(ctl_doctor.doctor, name="doctor")
app.command(ctl_config.service, name="service")
daemon.command(ctl_daemon.start, name="start")
daemon.command(ctl_daemon.stop, name="stop")
daemon.command(ctl_daemon.status, name="status")
daemon.command(ctl_daemon.run, name="run")
relay.command(ctl_relay.connect, name="connect")
models.command(ctl_models.list_, name="list")
models.command(ctl_models.fetch, name="fetch")
apps.command(ctl_apps.allow, name="allow")
apps.command(ctl_apps.list_, name="list")
apps.command(ctl_apps.remove, name="remove")
worker.command(ctl_worker.run, name="run")
config.command(ctl_config.show_settings, name="show")


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    app(arguments)


if __name__ == "__main__":
    main()
