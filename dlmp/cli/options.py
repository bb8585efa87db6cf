"""Options that commands share: how a case is cleared."""

from typing import Annotated

import typer

from dlmp.formulation import FORMULATIONS
from dlmp.settings import HARD, LOSS_MODELS, SOFT, Settings

FormulationOption = Annotated[str, typer.Option(metavar="F", help=f"Network model: {', '.join(FORMULATIONS)}.")]
LossesOption = Annotated[str, typer.Option(metavar="L", help=f"Losses of lindistflow: {', '.join(LOSS_MODELS)}.")]
HardOption = Annotated[
    bool,
    typer.Option("--hard", help="Refuse a case in which not all limits can be kept, and name those that conflict."),
]
MaxPassesOption = Annotated[int, typer.Option(metavar="N", help="Most LPs before giving up.")]
ParquetOption = Annotated[bool, typer.Option("--parquet", help="Write the tables as Parquet too.")]
CertificateOption = Annotated[bool, typer.Option(help="Check the result independently.")]
TapsOption = Annotated[
    bool, typer.Option("--taps", help="Settle the regulators of an OpenDSS circuit at what is cleared.")
]
WorkersOption = Annotated[
    int, typer.Option(min=1, metavar="N", help="Processes among which intervals are divided that nothing couples.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]


def settings_of(formulation: str, losses: str, hard: bool, max_passes: int) -> Settings:
    """Make the settings that these options ask for."""
    limits = HARD if hard else SOFT
    return Settings(formulation=formulation, losses=losses, limits=limits, max_passes=max_passes)
