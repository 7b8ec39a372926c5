"""`lattice runtimes hosted`: capacity that the gateway's operator enrols. The key needs `lattice:admin`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lattice.cli.common import DEFAULT, Common
from lattice.cli.output import show
from lattice.cli.runtime_views import describe, print_bootstrap, print_runtimes

if TYPE_CHECKING:
    from rich.console import Console


def create(name: str, /, *, common: Common = DEFAULT) -> None:
    """Make a record for a hosted machine.

    Parameters
    ----------
    name
        What to call the machine.
    """
    with common.client() as client:
        made = client.create_hosted_runtime(name)

        def people(out: Console) -> None:
            out.print(f"{made.id}  {made.name}  {made.state}", markup=False)
            out.print(f"Next: lattice runtimes hosted bootstrap {made.id}", style="dim")

        show(describe(made), common.json, people)


def list_(*, common: Common = DEFAULT) -> None:
    """List hosted machines."""
    with common.client() as client:
        found = client.list_hosted_runtimes()
        show({"runtimes": [describe(r) for r in found]}, common.json, lambda out: print_runtimes(out, found))


def bootstrap(runtime: str, /, *, common: Common = DEFAULT) -> None:
    """Make the string that pairs a hosted machine. It works once, for ten minutes.

    Parameters
    ----------
    runtime
        The machine's id.
    """
    with common.client() as client:
        text = client.bootstrap_hosted_runtime(runtime)
        show(
            {"runtime": runtime, "bootstrap": text, "gateway": client.base_url},
            common.json,
            lambda out: print_bootstrap(out, text, client.base_url, f"lattice runtimes hosted verify {runtime}"),
        )


def verify(runtime: str, /, *, common: Common = DEFAULT) -> None:
    """Check the pairing proof of a hosted machine that was bootstrapped here.

    Parameters
    ----------
    runtime
        The machine's id.
    """
    with common.client() as client:
        found = client.verify_hosted_pairing(runtime)
        show(describe(found), common.json, lambda out: out.print(f"{found.id}  {found.trust}  {found.words or ''}"))


def revoke(runtime: str, /, *, common: Common = DEFAULT) -> None:
    """Revoke a hosted machine: its credential ends and its work stops.

    Parameters
    ----------
    runtime
        The machine's id.
    """
    with common.client() as client:
        gone = client.revoke_hosted_runtime(runtime)
        show(describe(gone), common.json, lambda out: out.print(f"Revoked {gone.id}."))
