"""Files of rows for tests, and what is read from them."""

from sparsezo_gui.engine.data.readers import read


def put(folder, name, content):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def values(path):
    return [record.values for record in read(path)]
