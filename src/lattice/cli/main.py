"""`lattice`: the command line for apps and operators. Each command's module is loaded when it runs."""

from __future__ import annotations

from cyclopts import App


def version() -> str:
    """The installed version."""
    from lattice import __version__

    return __version__


app = App(
    name="lattice",
    help="One API for private AI compute. Commands read LATTICE_BASE_URL and LATTICE_API_KEY.",
    version=version,
    help_format="plaintext",
)

keys = App(name="keys", help="Developer keys of the account.")
runtimes = App(name="runtimes", help="Your own machines: create, pair, verify, revoke.")
hosted = App(name="hosted", help="Hosted capacity, for the operator of the gateway.")
credits_ = App(name="credits", help="The account's credits.")
prices = App(name="prices", help="The catalogue of hosted models and its prices, for the operator.")
models = App(name="models", help="Models that run on encrypted data: check, compile, try out, deploy.")
tokens = App(name="tokens", help="Access tokens, with which end users query an encrypted model.")
workers = App(name="workers", help="Machines that evaluate encrypted models.")

runtimes.command(hosted)
for group in (keys, runtimes, credits_, prices, models, tokens, workers):
    app.command(group)

_COMMANDS = (
    (app, "up", "up:up", "Run a gateway on this machine, without configuration.", "lattice up"),
    (
        app,
        "demo",
        "demo:demo",
        "Show everything once: gateway, pairing, real answers, and a model on encrypted data.",
        "lattice demo --once",
    ),
    (app, "doctor", "doctor:doctor", "Check this computer and say what it lacks.", "lattice doctor"),
    (
        app,
        "chat",
        "chat:chat",
        "Ask a model, sealed to the machine where one is named.",
        "lattice chat lattice:smollm2-135m-instruct 'What is a lattice?'",
    ),
    (
        keys,
        "create",
        "keys:create",
        "Make a key and show its secret, once.",
        "lattice keys create my-app --spend-cap 5 --days 30",
    ),
    (keys, "list", "keys:list_", "List the account's keys.", "lattice keys list"),
    (keys, "revoke", "keys:revoke", "Revoke a key at once.", "lattice keys revoke key_01kb…"),
    (keys, "show", "keys:show_key", "Show what the key in use is and may do.", "lattice keys show --json"),
    (runtimes, "create", "runtimes:create", "Make a record for a machine.", "lattice runtimes create living-room"),
    (
        runtimes,
        "list",
        "runtimes:list_",
        "List machines and whether this app trusts them.",
        "lattice runtimes list --reachable",
    ),
    (
        runtimes,
        "bootstrap",
        "runtimes:bootstrap",
        "Make the string that pairs a machine.",
        "lattice runtimes bootstrap lat_01kb…",
    ),
    (
        runtimes,
        "verify",
        "runtimes:verify",
        "Check a machine's pairing, or confirm its words.",
        "lattice runtimes verify lat_01kb… --words 'the words on its screen'",
    ),
    (runtimes, "revoke", "runtimes:revoke", "Revoke a machine.", "lattice runtimes revoke lat_01kb…"),
    (
        runtimes,
        "sender",
        "runtimes:sender",
        "Show this app's sender key, for `lattice-ctl apps allow` on a machine.",
        "lattice runtimes sender",
    ),
    (hosted, "create", "hosted:create", "Make a record for a hosted machine.", "lattice runtimes hosted create rack-1"),
    (hosted, "list", "hosted:list_", "List hosted machines.", "lattice runtimes hosted list"),
    (
        hosted,
        "bootstrap",
        "hosted:bootstrap",
        "Make the string that pairs a hosted machine.",
        "lattice runtimes hosted bootstrap lat_01kb…",
    ),
    (
        hosted,
        "verify",
        "hosted:verify",
        "Check a hosted machine's pairing.",
        "lattice runtimes hosted verify lat_01kb…",
    ),
    (hosted, "revoke", "hosted:revoke", "Revoke a hosted machine.", "lattice runtimes hosted revoke lat_01kb…"),
    (credits_, "show", "credits:balance", "Show the balance and what running work holds.", "lattice credits show"),
    (
        credits_,
        "grant",
        "credits:grant",
        "Grant credits to an account.",
        "lattice credits grant acc_01kb… 2.5 --reason welcome",
    ),
    (prices, "list", "prices:list_", "List the catalogue and what its models cost.", "lattice prices list"),
    (
        prices,
        "set",
        "prices:set_",
        "Add a model to the catalogue, or change its price.",
        "lattice prices set llama-3.2-1b --input 0.05 --output 0.2",
    ),
    (
        models,
        "check",
        "models:check",
        "Say whether a model can run encrypted, and what stands in the way.",
        "lattice models check model.onnx",
    ),
    (
        models,
        "compile",
        "models:compile_",
        "Compile a model into one file that runs on encrypted data.",
        "lattice models compile model.onnx --calibration data.npz --sign publisher.pem",
    ),
    (
        models,
        "report",
        "models:report",
        "Show what a compiled model will do, as text or as a picture.",
        "lattice models report model.lattice --svg report.svg",
    ),
    (
        models,
        "simulate",
        "model_runs:simulate",
        "Run a compiled model with the noise of encryption, but without encryption.",
        "lattice models simulate model.lattice --data test.npz",
    ),
    (
        models,
        "run",
        "model_runs:run",
        "Run a compiled model really encrypted, on this machine.",
        "lattice models run model.lattice --data test.npz --count 5",
    ),
    (
        models,
        "key",
        "publisher:key",
        "Make the key that signs compiled models, or show it.",
        "lattice models key publisher.pem",
    ),
    (
        models,
        "create",
        "encrypted_models:create",
        "Make an encrypted model at the gateway.",
        "lattice models create mnist --autostart",
    ),
    (
        models,
        "upload",
        "encrypted_models:upload",
        "Upload a version of an encrypted model, compiled or as ONNX.",
        "lattice models upload mnist model.lattice",
    ),
    (models, "list", "encrypted_models:list_", "List the account's encrypted models.", "lattice models list"),
    (
        models,
        "versions",
        "encrypted_models:versions",
        "List a model's versions and their states.",
        "lattice models versions mnist --json",
    ),
    (models, "delete", "encrypted_models:delete", "Delete an encrypted model.", "lattice models delete mnist"),
    (
        tokens,
        "create",
        "tokens:create",
        "Make an access token for an end user and show it, once.",
        "lattice tokens create mnist phone --user alice --days 30",
    ),
    (tokens, "list", "tokens:list_", "List a model's access tokens.", "lattice tokens list mnist"),
    (tokens, "revoke", "tokens:revoke", "Revoke an access token.", "lattice tokens revoke mnist tok_01kb…"),
    (
        tokens,
        "assign",
        "tokens:assign",
        "Give an access token to a user, or take it back.",
        "lattice tokens assign mnist tok_01kb… alice",
    ),
    (workers, "start", "workers:start", "Start workers for a model.", "lattice workers start mnist --count 2"),
    (workers, "stop", "workers:stop", "Stop a worker.", "lattice workers stop wkr_01kb…"),
    (workers, "list", "workers:list_", "List workers and their states.", "lattice workers list mnist"),
    (
        workers,
        "sessions",
        "workers:sessions",
        "List what workers ran and what it cost.",
        "lattice workers sessions --json",
    ),
    (
        credits_,
        "statement",
        "credits:statement",
        "Show what comes in, what running workers cost, and how long the balance lasts.",
        "lattice credits statement",
    ),
    (
        credits_,
        "top-up",
        "credits:top_up",
        "Add credits in the way that the operator has set up.",
        "lattice credits top-up 5",
    ),
    (
        app,
        "query",
        "query:query",
        "Ask an encrypted model about the samples of a file.",
        "lattice query test.npz --count 5",
    ),
    (app, "usage", "ledger:usage", "List what was asked, counted and charged.", "lattice usage --limit 50"),
    (app, "ledger", "ledger:ledger", "List the account's ledger postings.", "lattice ledger --work work_01kb…"),
)
"""Group, name, target, summary and example: `--help` shows them without loading any command's module."""

for _group, _name, _target, _help, _example in _COMMANDS:
    _group.command(f"lattice.cli.{_target}", name=_name, help=_help, help_epilogue=f"Example: {_example}")


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    app(arguments)


if __name__ == "__main__":
    main()
