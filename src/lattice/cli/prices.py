"""`lattice prices`: the catalogue of hosted models, for the operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lattice.cli.common import DEFAULT, Common, cell
from lattice.cli.output import show, table

if TYPE_CHECKING:
    from rich.console import Console


def list_(*, common: Common = DEFAULT) -> None:
    """List the catalogue and what its models cost, in credits per million tokens."""
    with common.client() as client:
        from lattice.core.money import format_credits

        prices = client.list_prices()

        def people(out: Console) -> None:
            columns = ("model", "input", "output", "max output", "context")
            rows = [
                (
                    str(price["model"]),
                    format_credits(price["input_micro_per_million"]),
                    format_credits(price["output_micro_per_million"]),
                    cell(price["default_max_output_tokens"]),
                    cell(price["context"]),
                )
                for price in prices
            ]
            table(out, columns, rows)

        show({"data": prices}, common.json, people)


def set_(
    model: str,
    /,
    *,
    input_: Annotated[str, Parameter(name="--input")],
    output: str,
    max_output: int = 1024,
    context: int | None = None,
    common: Common = DEFAULT,
) -> None:
    """Add a model to the catalogue, or change its price. The key needs the scope lattice:admin.

    Parameters
    ----------
    model
        The canonical id; hosted machines that offer a model of this name serve it.
    input_
        Credits per million input tokens.
    output
        Credits per million output tokens.
    max_output
        Output tokens where a request names no ceiling.
    context
        The model's context, to show in lists.
    """
    with common.client() as client:
        from lattice.cli.amounts import micro_credits

        price = client.set_price(
            model,
            input_micro_per_million=micro_credits(input_),
            output_micro_per_million=micro_credits(output),
            default_max_output_tokens=max_output,
            context=context,
        )
        show(price, common.json, lambda out: out.print(f"{model}: {input_} in, {output} out, per million tokens."))
