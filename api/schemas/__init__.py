"""What goes in and out over HTTP, as pydantic models; nothing behind the edge knows them."""
