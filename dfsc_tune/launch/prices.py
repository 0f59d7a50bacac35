"""What a cluster costs an hour, by the assumed prices in `cluster/prices.yaml` or one's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from dfsc_tune.cost.prices import Price
from dfsc_tune.errors import UserError
from dfsc_tune.launch.cluster_files import shipped_folder


@dataclass(frozen=True)
class Machine:
    """A kind of machine that can be rented."""

    name: str
    gpus: int
    gpu: str | None
    cpus: int
    per_hour: float
    """On demand."""


@dataclass(frozen=True)
class HourlyCost:
    """What a cluster with all its GPUs costs an hour, and what it does with none."""

    currency: str
    date: str
    """When the prices were noted."""
    on_demand: float
    spot: float
    """If every GPU machine is spot, at a guessed share of the price."""
    idle: float
    """The head alone."""
    machine: Price
    """A GPU machine, on demand."""


def known_machines(provider: str) -> dict[str, Machine]:
    """The machines of a provider whose price is known, by name."""
    rows = _table()["machines"].get(provider, {})
    return {
        name: Machine(name, row["gpus"], row.get("gpu"), row["cpus"], row["per_hour"])
        for name, row in rows.items()
        if name != "region"
    }


def find_machine(
    provider: str, name: str, *, gpus: int | None, cpus: int | None, per_hour: float | None
) -> Machine:
    """A kind of machine: as known, with what the user says of it on top.

    Raises:
        UserError: it is not known, and the user does not say enough of it.
    """
    known = known_machines(provider).get(name)
    if known is None and None in (gpus, cpus, per_hour):
        raise UserError(
            f"nothing is known of the machine {name} of {provider}; say more of it with "
            "--gpus-per-machine, --cpus-per-machine and --price-per-hour, or choose from "
            f"{', '.join(x.name for x in known_machines(provider).values() if x.gpus)}"
        )

    def either(given: Any, attribute: str) -> Any:
        return getattr(known, attribute) if given is None else given

    return Machine(
        name,
        gpus=either(gpus, "gpus"),
        gpu=known.gpu if known else None,
        cpus=either(cpus, "cpus"),
        per_hour=either(per_hour, "per_hour"),
    )


def hourly_cost(machine: Machine, head: Machine, gpus: int) -> HourlyCost:
    """What a head and machines with so many GPUs cost."""
    price = Price(machine.per_hour, machine.gpus)
    workers = price.per_hour_of(gpus)
    currency, date = price_date()
    return HourlyCost(
        currency=currency,
        date=date,
        on_demand=workers + head.per_hour,
        spot=workers * spot_share() + head.per_hour,
        idle=head.per_hour,
        machine=price,
    )


def spot_share() -> float:
    """What a spot machine is guessed to cost of the price on demand."""
    return float(_table()["spot_share"])


def price_date() -> tuple[str, str]:
    """The currency of the assumed prices, and when they were noted."""
    table = _table()
    return table["currency"], str(table["date"])


def _table() -> dict[str, Any]:
    text = (shipped_folder() / "prices.yaml").read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.safe_load(text)
    return table
