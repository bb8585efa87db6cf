"""The market service on the machine that it runs on: ``dlmp serve``, ``key`` and ``audit``, with its settings."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from api import admin
from api.auth import ROLES
from api.clock import rfc3339
from api.serve import serve
from dlmp.cli.terminal import new_app, print_rows
from dlmp.errors import InputError, Problem

AUDIT_FAULT_CODE = 1

app = new_app()
key_app = new_app("Issue, list and revoke API keys, on the service's database.")
audit_app = new_app("Verify what the service's database holds.")
app.add_typer(key_app, name="key")
app.add_typer(audit_app, name="audit")

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="Folder of the database and the operator's key. [default: dlmp-data]"
    ),
]


@app.command("serve")
def serve_command(
    host: Annotated[str, typer.Option(metavar="HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", help="Port to listen on.")] = 8000,
    data_dir: DataDir = None,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes; more than 1 with PostgreSQL only.")] = 1,
    log_format: Annotated[
        str | None, typer.Option(metavar="F", help="Log on standard output: json or text. [default: json]")
    ] = None,
) -> None:
    """Run the market service; the variables DLMP_DATABASE_URL and so on have its other settings."""
    serve(admin.read_settings(data_dir=data_dir, log_format=log_format), host, port, workers)


@key_app.command("issue")
def issue_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    role: Annotated[str, typer.Option(metavar="ROLE", help=f"Role: {', '.join(ROLES)}.")],
    participant: Annotated[
        str | None, typer.Option(metavar="P", help="Whose an aggregator's key is: name or id.")
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(metavar="S", help="A part of what the role may do; give it more than once.")
    ] = None,
    expires_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="When it ends, such as 2027-01-01T00:00:00Z.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Issue a key and print it; it is not kept and cannot be shown again."""
    settings = admin.read_settings(data_dir=data_dir)
    _, whole = admin.issue_key(
        settings, name=name, role=role, participant_id=participant, scopes=scope or None, expires_at=expires_at
    )
    typer.echo(whole)


@key_app.command("list")
def list_command(data_dir: DataDir = None) -> None:
    """List all keys, without their secrets."""
    rows = [("key", "name", "role", "participant", "issued", "state")]
    for key in admin.list_keys(admin.read_settings(data_dir=data_dir)):
        issued = f"{key['created_at']:%Y-%m-%d %H:%M}Z"
        rows.append((key["id"], key["name"], key["role"], key["participant"] or "-", issued, _state(key)))
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _state(key: Any) -> str:
    if key["revoked_at"] is not None:
        return "revoked"
    if key["expires_at"] is None:
        return "works"
    return "expired" if key["expires_at"] <= datetime.now(UTC) else f"works until {rfc3339(key['expires_at'])}"


@key_app.command("revoke")
def revoke_command(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Name of the key, as `dlmp key list` has it.")],
    data_dir: DataDir = None,
) -> None:
    """Revoke a key; it stops working within a second."""
    if "." in key:
        raise InputError([Problem("key", "id", "hidden", "give the key's name, key_ and 24 digits, not its secret")])
    admin.revoke_key(admin.read_settings(data_dir=data_dir), key)
    typer.echo(f"{key} is revoked")


@audit_app.command("verify")
def verify_command(data_dir: DataDir = None) -> None:
    """Compare everything in the database with its audit chain; exit code 1 where anything was altered."""
    entries, faults = admin.verify_audit(admin.read_settings(data_dir=data_dir))
    rows = [("audit", f"{entries} entries, {'whole' if not faults else 'not whole'}")]
    print_rows(rows + [("", f"- {fault}") for fault in faults])
    if faults:
        raise typer.Exit(AUDIT_FAULT_CODE)
