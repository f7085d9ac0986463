"""Reads and writes compose files so that each scalar stays as it is: docker decides whether 08 or 1e3 is a number.

PyYAML and docker's YAML library disagree about such scalars. So a scalar without quotes is read as a `Plain`
text and is written without quotes again, and a scalar with quotes is a str and gets quotes again.
"""

import yaml

TEXT = "tag:yaml.org,2002:str"
KEPT = ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:null")  # `<<` is carried out, and nothing is None


class Plain(str):
    """A scalar that the file has without quotes."""


class Loader(yaml.SafeLoader):
    """Resolves no scalar but those in KEPT."""


class Dumper(yaml.SafeDumper):
    """Resolves no scalar, so that a Plain one needs no quotes."""

    def ignore_aliases(self, _data):
        return True


Loader.yaml_implicit_resolvers = {
    letter: [(tag, form) for tag, form in resolvers if tag in KEPT]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_constructor(TEXT, lambda _, node: node.value if node.style else Plain(node.value))
Dumper.yaml_implicit_resolvers = {}
for kind, text in ((bool, lambda value: str(value).lower()), (int, str), (type(None), lambda _: "null"), (Plain, str)):
    Dumper.add_representer(kind, lambda dumper, value, text=text: dumper.represent_scalar(TEXT, text(value)))
Dumper.add_representer(str, lambda dumper, value: dumper.represent_scalar(TEXT, value, style='"'))


def load(text):
    """The content of a file; yaml.YAMLError if it is not YAML. Aliases are copies."""
    return copied(yaml.load(text, Loader))


def dump(content):
    return yaml.dump(content, Dumper=Dumper, sort_keys=False)


def copied(content):
    """A copy in which aliases are copies, too: else a change of one service would change another one."""
    if isinstance(content, dict):
        return {key: copied(value) for key, value in content.items()}
    return [copied(value) for value in content] if isinstance(content, list) else content
