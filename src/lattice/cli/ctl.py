"""`lattice-ctl`: the command line of the person who owns a machine. Each command's module is loaded when it runs."""

from __future__ import annotations

from cyclopts import App


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
config = App(name="config", help="The settings and where each comes from.")

for group in (daemon, relay, models, apps, config):
    app.command(group)

daemon.command(
    "lattice.cli.ctl_daemon:start", name="start", help="Start the daemon in the background and wait until it answers."
)
daemon.command("lattice.cli.ctl_daemon:stop", name="stop", help="Stop the daemon after it has finished what runs.")
daemon.command("lattice.cli.ctl_daemon:status", name="status", help="Say whether the daemon runs.")
daemon.command("lattice.cli.ctl_daemon:run", name="run", help="Run the daemon in the foreground.")
app.command(
    "lattice.cli.ctl_status:status", name="status", help="Show the daemon, the model, the pairing and the connection."
)
app.command(
    "lattice.cli.ctl_status:ping", name="ping", help="Ask the gateway whether it is there, and how long the way takes."
)
relay.command("lattice.cli.ctl_relay:connect", name="connect", help="Pair this machine with a gateway.")
models.command(
    "lattice.cli.ctl_models:list_", name="list", help="List the models that can be fetched or are configured."
)
models.command("lattice.cli.ctl_models:fetch", name="fetch", help="Fetch the small default model and check its digest.")
app.command(
    "lattice.cli.ctl_doctor:doctor",
    name="doctor",
    help="Check everything that the machine needs and say how to repair it.",
)
apps.command("lattice.cli.ctl_apps:allow", name="allow", help="Let an app's sealed work be opened here.")
apps.command("lattice.cli.ctl_apps:list_", name="list", help="List whose sealed work this machine opens.")
apps.command("lattice.cli.ctl_apps:remove", name="remove", help="Stop opening a sender's work.")
config.command(
    "lattice.cli.ctl_config:show_settings", name="show", help="Print every setting, its value and its source."
)
app.command(
    "lattice.cli.ctl_config:service", name="service", help="Print a systemd user unit that starts the daemon at login."
)


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    app(arguments)


if __name__ == "__main__":
    main()
