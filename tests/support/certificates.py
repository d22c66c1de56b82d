"""Certificates made by the test, in files as services read them."""

from pathlib import Path

import trustme
from attrs import define, field


@define(eq=False)
class Authority:
    """A CA, and the files of what it has signed."""

    folder: Path
    ca: trustme.CA = field(factory=trustme.CA)

    def __attrs_post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.ca.cert_pem.write_to_path(self.file)

    @property
    def file(self) -> Path:
        return self.folder / f"ca-{id(self):x}.pem"

    def issue(self, name: str, *hosts: str) -> Path:
        """A certificate for `hosts` with its key, both in the file that is returned; an older one of that name is replaced."""
        path = self.folder / f"{name}.pem"
        path.unlink(missing_ok=True)
        self.ca.issue_cert(*hosts).private_key_and_cert_chain_pem.write_to_path(path)
        return path
