"""A bucket that processes of this machine share, `shared:///path`: objects appear whole, and exclusively if asked."""

import os
import shutil
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem


class Bucket(LocalFileSystem):
    """A folder that behaves as S3 does: no appending, and no object is ever half there."""

    protocol = "shared"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("shared://"))

    def pipe_file(self, path, value, mode="overwrite", **_):
        aside = self._aside(path)
        with open(aside, "wb") as file:
            file.write(value)
        self.place(aside, path, mode)

    def put_file(self, lpath, rpath, *_, **__):
        aside = self._aside(rpath)
        shutil.copyfile(lpath, aside)
        self.place(aside, rpath, "overwrite")

    def _aside(self, path):
        path = self._strip_protocol(path)
        folder = os.environ["COLT_TEST_BUCKETS"]  # outside: nobody lists what is on its way
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return f"{folder}/{uuid4().hex}"

    def place(self, aside, path, mode):
        """Let an object appear."""
        path = self._strip_protocol(path)
        if mode == "create":
            os.link(aside, path)
            os.unlink(aside)
        else:
            os.replace(aside, path)


fsspec.register_implementation("shared", Bucket, clobber=True)
