"""Numbers in, numbers out: bounds that know neither tasks nor models."""
