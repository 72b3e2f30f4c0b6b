"""Prints the documents of a YAML file as a JSON list. A key that is there twice is an error, which YAML itself lets pass."""
import json
import sys

import yaml


class Strict(yaml.SafeLoader):
    pass


def mapping(loader, node):
    loader.flatten_mapping(node)
    keys = [loader.construct_object(k) for k, _ in node.value]
    for key in keys:
        if not isinstance(key, str):
            raise SystemExit(f"{node.start_mark}: the key {key!r} is no text")
        if keys.count(key) > 1:
            raise SystemExit(f"{node.start_mark}: {key!r} is there twice")
    return loader.construct_mapping(node, deep=True)


Strict.add_constructor("tag:yaml.org,2002:map", mapping)
with open(sys.argv[1]) as f:
    json.dump(list(yaml.load_all(f, Strict)), sys.stdout)
