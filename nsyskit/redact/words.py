"""What in a text names a person, a machine or a secret, and the text without it.

Two nets: shapes (addresses, keys with a maker's prefix, ``password=…``, folders of people) and values known from
elsewhere in the same file (the user's name, the value of ``HF_TOKEN``), wherever they come up again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

CLASSES: Final[dict[str, str]] = {
    "environment": "environment variables of the program and of the processes around it",
    "argument": "words of the command line that are neither options, numbers nor model files",
    "credential": "keys, tokens and passwords, by their shape or because a variable or option holds them",
    "host": "names of the machine",
    "user": "names of its user",
    "home": "folders of people and projects; the file's own name stays",
    "address": "network and mail addresses",
    "output": "what the program printed, and files that nsys took along",
    "other": "strings that no event refers to, facts of no known kind",
}
"""Class -> what it covers."""

HIDDEN: Final = "(hidden)"
_SENSITIVE: Final = r"pass(?:word|wd|phrase|code)?|pwd|secret|token|api[-_]?key|key|credentials?|cookie|auth|bearer|hft"
_SECRET_NAME = re.compile(rf"(?:^|[-_])(?:{_SENSITIVE}|apikey)(?:$|[-_])|secret|token$|passw|apikey", re.IGNORECASE)
_SYSTEM = r"(?:usr|lib\w*|bin|sbin|opt|etc|proc|sys|dev|snap|nix|boot|run|System|Library)"
_PATH = re.compile(
    r"(?:(?<=^)|(?<=[\s\"'=:,;(\[<>|]))(?:file://)?"
    rf"(?:~[\w.-]*(?=[/\\])|/(?!{_SYSTEM}(?:/|\b))[^/\s\"';,:|<>]+(?=/)|[A-Za-z]:(?=[\\/])|\\\\+[^\\\s]+(?=\\))"
    r"[^\s\"';,|<>]*"
)
_HOME = re.compile(
    r"(?:/(?:home|Users|users|root)\b|[A-Za-z]:\\(?:Users|Documents and Settings)\b)[^\"';,|<>\s]*", re.ASCII
)
_OWNER = re.compile(r"(?:/(?:home|Users)/|[A-Za-z]:\\Users\\)([\w.@-]{2,})", re.ASCII)

_CREDENTIALS = re.compile(
    r"""
    -----BEGIN[ ][A-Z ]*-----.*?(?:-----END[ ][A-Z ]*-----|\Z)
    | \b(?:sk|pk|rk|nvapi|glpat|xox[a-z]|hf|npm|pypi|github_pat|gh[a-z]|dop_v1|shpat|r8|gsk|lsv2|tgp_v1)[-_][\w-]{4,}
    | \b(?:AKIA|ASIA|AIza|ya29\.|SG\.|AGE-SECRET-KEY-)[\w.-]{8,}
    | \beyJ[\w-]{4,}\.[\w-]+(?:\.[\w-]*)?
    | \b(?:Bearer|Basic|Digest|Token)\s+[\w.+/=~-]{4,}
    | \bssh-(?:rsa|ed25519|dss)\s+\S+(?:\s+\S+@\S+)?
    | \b[0-9a-fA-F]{32,}\b
    | (?<=://)[^\s/@]+(?=@)
    | (?:(?<=[?&;\s"'{,(])|^)
      [\w.-]*(?:pass(?:word|wd|phrase|code)|pwd|secret|token|(?:api|access)[-_]?key|credential|cookie|signature)[\w.-]*
      ["']?\s*[=:]\s*["']?(?!\(hidden)[^\s"'&;,}]+
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_ADDRESSES = re.compile(
    r"""
    \b[a-z][a-z0-9+.-]*://[^\s"'<>]*
    | [\w.+-]+@[\w-]+(?:\.[\w-]+)*(?::\S*)?
    | (?<![\w.])(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}(?![\w.]*\w)(?::\d+)?
    | (?<![\w:])(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}(?![\w:])
    | (?<![\w:])\[?(?:[0-9a-f]{1,4}:){2,7}(?::?[0-9a-f]{1,4}){1,7}\]?(?![\w:])
    | (?<![\w:])(?:fe80|fd[0-9a-f]{2}|::ffff)::?[0-9a-f:.%\w]+
    | (?<![\w.-])(?:[\w-]+\.)+
      (?:com|net|org|io|dev|ai|edu|gov|internal|local|lan|corp|cloud|intra|home|de|eu|uk|ch|fr|jp|cn)
      (?![\w-])(?::\d+)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_COMMON: Final = frozenset({
    "root", "user", "users", "admin", "localhost", "local", "test", "nobody", "none", "linux", "windows", "ubuntu",
    "debian", "host", "main", "true", "false", "default", "cuda", "nvidia", "llama", "python", "docker", "runner",
})  # fmt: skip
_SHORTEST_NAME: Final = 3
_SHORTEST_SECRET: Final = 6


@dataclass(slots=True)
class Known:
    """Values that a file gives away in one place and may repeat in another."""

    users: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)
    secrets: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)

    def learn_variable(self, name: str, value: str) -> None:
        """What an environment variable tells."""
        upper = name.upper()
        if upper in {"USER", "LOGNAME", "USERNAME", "SUDO_USER", "LNAME"}:
            self.users.add(value)
        elif upper in {"HOSTNAME", "HOST", "COMPUTERNAME", "SLURMD_NODENAME", "NODENAME"}:
            self.hosts.add(value)
        elif upper in {"HOME", "USERPROFILE", "PWD", "OLDPWD"}:
            self.folders.add(value.rstrip("/\\"))
        elif is_secret_name(name):
            self.secrets |= {value, *re.split(r"[,;\s]", value)}
        self.learn_owners(value)

    def learn_owners(self, text: str) -> None:
        """The owners of home folders that a text names."""
        self.users |= set(_OWNER.findall(text))


def is_secret_name(name: str) -> bool:
    """Whether an option or a variable of this name holds a secret; names of files hold none."""
    return _SECRET_NAME.search(name) is not None and not name.upper().endswith(("_FILE", "_PATH", "_DIR", "TOKENS"))


class Scrubber:
    """Texts without the classes that are not kept. Counts what it takes away, by class."""

    def __init__(self, known: Known, *, keep: Iterable[str] = ()) -> None:
        self.keep = frozenset(keep)
        self.counts: Counter[str] = Counter()
        self._owners = tuple(sorted(name for name in known.users if len(name) >= _SHORTEST_NAME))
        self._folders = tuple(
            sorted((folder for folder in known.folders if folder.count("/") > 1), key=len, reverse=True)
        )
        words = {
            "credential": _any_of(value for value in known.secrets if len(value) >= _SHORTEST_SECRET),
            "user": _any_of(_telling(known.users), whole_words=True),
            "host": _any_of(_telling(known.hosts), whole_words=True),
        }
        self._words = [(name, pattern) for name, pattern in words.items() if pattern and name not in self.keep]

    def found(self, name: str) -> bool:
        """Count one find of a class; whether it is to go."""
        if name in self.keep:
            return False
        self.counts[name] += 1
        return True

    def text(self, text: str) -> str:
        """A sentence, a value or a label without addresses, secrets, and people's names and folders."""
        text = self._replaced("credential", _CREDENTIALS, text)
        return self.path(self._known(self._replaced("address", _ADDRESSES, text)))

    def name(self, text: str) -> str:
        """What an event is called: only folders of people go."""
        return self._shortened(_HOME, text)

    def path(self, text: str) -> str:
        """Paths outside the system's own folders become the file's name alone."""
        if any(f"/{owner}" in text or f"\\{owner}" in text for owner in self._owners):
            text = self._shortened(re.compile(r"\S*[/\\]\S*"), text)
        for folder in self._folders:
            if folder in text and "home" not in self.keep:
                text = self._shortened(re.compile(re.escape(folder) + r"[^\s\"';,|<>]*"), text)
        return self._known(self._shortened(_PATH, self._shortened(_HOME, text)))

    def file_name(self, text: str) -> str:
        """A text that is a path as a whole, spaces included."""
        if _HOME.match(text) or _PATH.match(text) or any(owner in re.split(r"[/\\]", text) for owner in self._owners):
            shortened = _base(text)
            text = shortened if shortened != text and self.found("home") else text
        return self.text(text)

    def _known(self, text: str) -> str:
        for name, pattern in self._words:
            text = self._replaced(name, pattern, text)
        return text

    def _replaced(self, name: str, pattern: re.Pattern[str] | None, text: str) -> str:
        if pattern is None or name in self.keep:
            return text
        cleaned, count = pattern.subn(HIDDEN, text)
        if cleaned == text:
            return text
        self.counts[name] += count
        return cleaned

    def _shortened(self, pattern: re.Pattern[str], text: str) -> str:
        if "home" in self.keep:
            return text
        cleaned = pattern.sub(lambda match: _base(match[0]), text)
        self.counts["home"] += cleaned != text
        return cleaned


def _base(path: str) -> str:
    """The last part of a path: its folder may be a person's, its name is the library's."""
    parts = [part for part in re.split(r"[/\\]", path) if part]
    below = parts[2:] if re.match(r"(?:/(?:home|Users|users)/|[A-Za-z]:\\Users\\)", path) else parts[1:]
    return f"~/{below[-1]}" if below else "~"


def _telling(names: Iterable[str]) -> list[str]:
    return [
        name for name in names if len(name) >= _SHORTEST_NAME and name.lower() not in _COMMON and not name.isdigit()
    ]


def _any_of(values: Iterable[str], *, whole_words: bool = False) -> re.Pattern[str] | None:
    ordered = sorted({value for value in values if value}, key=lambda value: (-len(value), value))
    if not ordered:
        return None
    joined = "|".join(map(re.escape, ordered))
    return re.compile(rf"(?<![\w-])(?:{joined})(?![\w-])" if whole_words else joined)
