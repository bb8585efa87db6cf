"""x."""
from dlmp.cli.terminal import new_app
app = new_app()
