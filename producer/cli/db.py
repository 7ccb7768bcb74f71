"""`nightshift db upgrade`."""

from contextlib import closing

import typer

from farm.database import Database
from farm.schema import upgrade
from producer.cli.answers import JsonOption, print_json
from schemas.settings import load_settings

app = typer.Typer()
db = typer.Typer(help="The ledger's tables.", no_args_is_help=True)
app.add_typer(db, name="db")


@db.command("upgrade", epilog="Example: nightshift db upgrade")
def db_upgrade(as_json: JsonOption = False) -> None:
    """Bring the ledger's tables to this version of Nightshift. May be run again, and while the farm runs:
    it says so where that must be stopped first."""
    with closing(Database(load_settings().database_url)) as database:
        revision = upgrade(database)
        if as_json:
            print_json({"ledger": database.safe_url, "revision": revision})
        else:
            print(f"the ledger {database.safe_url} is at {revision}")
