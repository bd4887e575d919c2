"""Files of settings."""

from pathlib import Path
from typing import Any

import yaml


class _Once(yaml.SafeLoader):
    """Of a YAML file each key of which stands once: of two, the last alone would count."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As yaml's; raises a `YAMLError` where a key stands twice."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):  # yaml refuses lists and mappings as keys itself
                continue
            if key.value in seen:
                problem = f"{key.value} stands there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """What is in a YAML file; raises a `YAMLError` if it is none, or a key stands twice."""
    return yaml.load(path.read_text("utf-8"), _Once)
