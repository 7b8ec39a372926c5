"""`lattice runtimes`: the account's own machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lattice.cli.common import DEFAULT, Common
from lattice.cli.output import reporting, show
from lattice.cli.runtime_views import describe, print_bootstrap, print_runtimes

if TYPE_CHECKING:
    from rich.console import Console


def create(name: str, /, *, common: Common = DEFAULT) -> None:
    """Make a record for a machine; pair it with `lattice runtimes bootstrap`.

    Parameters
    ----------
    name
        What to call the machine.
    """
    with common.client() as client:
        made = client.create_personal_runtime(name)

        def people(out: Console) -> None:
            out.print(f"{made.id}  {made.name}  {made.state}", markup=False)
            out.print(f"Next: lattice runtimes bootstrap {made.id}", style="dim")

        show(describe(made), common.json, people)


def list_(*, reachable: bool = False, common: Common = DEFAULT) -> None:
    """List the account's machines, whether they answer, and whether this app trusts their identity.

    Parameters
    ----------
    reachable
        Only machines whose daemon polls now.
    """
    with common.client() as client:
        found = client.list_reachable_personal_runtimes() if reachable else client.list_personal_runtimes()
        show({"runtimes": [describe(r) for r in found]}, common.json, lambda out: print_runtimes(out, found))


def bootstrap(runtime: str, /, *, common: Common = DEFAULT) -> None:
    """Make the string that pairs a machine. It works once, for ten minutes; the gateway never learns its second half.

    Parameters
    ----------
    runtime
        The machine's id.
    """
    with common.client() as client:
        text = client.bootstrap_personal_runtime(runtime)
        show(
            {"runtime": runtime, "bootstrap": text, "gateway": client.base_url},
            common.json,
            lambda out: print_bootstrap(out, text, client.base_url, f"lattice runtimes verify {runtime}"),
        )


def verify(runtime: str, /, *, words: str | None = None, common: Common = DEFAULT) -> None:
    """Check the pairing proof of a machine and pin its identity. For one that was paired elsewhere, confirm its words.

    Parameters
    ----------
    runtime
        The machine's id.
    words
        The fingerprint that `lattice-ctl status` shows on the machine itself.
    """
    with common.client() as client:
        found = client.confirm_fingerprint(runtime, words) if words else client.verify_pairing(runtime)

        def people(out: Console) -> None:
            out.print(f"{found.id}  {found.trust}")
            if found.words:
                out.print(f"fingerprint  {found.words}")
            if found.trust == "unverified":
                out.print("Compare it with `lattice-ctl status` on the machine; if it is the same, confirm it:")
                out.print(f'  lattice runtimes verify {found.id} --words "<what the machine shows>"')

        show(describe(found), common.json, people)


def revoke(runtime: str, /, *, common: Common = DEFAULT) -> None:
    """Revoke a machine: its credential ends, its work stops, and this app forgets its pin.

    Parameters
    ----------
    runtime
        The machine's id.
    """
    with common.client() as client:
        gone = client.revoke_personal_runtime(runtime)
        show(describe(gone), common.json, lambda out: out.print(f"Revoked {gone.id}."))


def sender(*, common: Common = DEFAULT) -> None:
    """Show this app's sender key, for `lattice-ctl apps allow` on a machine that was not paired from here."""
    with reporting(common.json):
        from lattice.client.disk import disk_key_store

        public = disk_key_store(None).sender().public

        def people(out: Console) -> None:
            out.print(public.text)
            out.print(f"On the machine: lattice-ctl apps allow {public.text}", style="dim")

        show({"sender": public.text, "fingerprint": public.words}, common.json, people)
