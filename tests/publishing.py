"""How long packing takes against `gzip -1` of the same files, and publishing against `cp` of the archives.

    python tests/publishing.py BUILD [--version N] [--bucket]

The models are the proven ones in BUILD. All is written into a temporary folder beside it; the bucket is that of a real
object store on this machine. Nothing is asked of where the checkpoints come from.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from isal import isal_zlib
from store import Store

from export.package.archive import BLOCK, COMPRESSION, package_model
from export.publish.bucket import Bucket
from export.publish.policy import PublishPolicy
from export.publish.publish import publish
from export.publish.store import Mirror
from models.catalog import DEFAULT_VERSION, HANDLES
from models.digests import DigestTable
from models.markdown import markdown_table
from models.records.layout import ModelPaths

RULES = PublishPolicy(
    DigestTable.read(), frozenset({"original", "seeded", "unknown"}), allow_dirty=True, needs_card=False
)


def bytes_read():
    """Bytes that this process, and those that it waited for, have read so far."""
    return int(re.search(r"^rchar: (\d+)$", Path("/proc/self/io").read_text(), flags=re.M)[1])


def measure(what, work):
    """Return a row: what, seconds, GB read, bytes sent as `work` returns them."""
    read, begin = bytes_read(), time.perf_counter()
    sent = work()
    seconds = time.perf_counter() - begin
    sys.stderr.write(f"{what}: {seconds:.1f} s\n")
    return (what, f"{seconds:.1f}", f"{(bytes_read() - read) / 1e9:.2f}", f"{sent:,}")


def pack(models):
    for one in models:
        package_model(one)
    return 0


def compress(models, folder):
    """Write the files of each model one after another through ISA-L, as `gzip -1` would those of an archive."""
    for number, model in enumerate(models):
        packer = isal_zlib.compressobj(COMPRESSION, wbits=15 + 16)
        with (folder / f"{number}.gz").open("wb") as packed:
            for path in sorted(model.directory.rglob("*")):
                if path.is_file():
                    with path.open("rb") as file:
                        while block := file.read(BLOCK):
                            packed.write(packer.compress(block))
            packed.write(packer.flush())
    return 0


def main():
    """Measure, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=Path)
    parser.add_argument("--version", type=int, default=DEFAULT_VERSION)
    parser.add_argument("--bucket", action="store_true")
    given = parser.parse_args()
    proven = [name for name in HANDLES if ModelPaths.of(given.build, name, given.version).report.is_file()]

    def send(place):
        return sum(publish(one, place, RULES).sent for one in models)

    with tempfile.TemporaryDirectory(dir=given.build.parent) as folder:
        mirror, copies = Mirror(Path(folder, "mirror")), Path(folder, "copies")
        copies.mkdir()
        build, old = Path(folder, "build"), shutil.ignore_patterns("*.tar.gz", "*.provenance.json*", "*.cdx.json")
        for name in proven:
            shutil.copytree(given.build / name, build / name, copy_function=os.link, ignore=old)
        models = [ModelPaths.of(build, name, given.version) for name in proven]
        archives = [one.archive for one in models]
        compress(models, copies)  # reads the files once, so that neither side waits for the disk
        rows = [measure("`gzip -1` of the files", lambda: compress(models, copies))]
        rows.append(measure("package", lambda: pack(models)))
        copy = ["cp", "--parents", *archives, copies]
        rows.append(measure("`cp` of the archives", lambda: subprocess.run(copy, check=True).returncode))
        rows.append(measure("publish to a directory", lambda: send(mirror)))
        rows.append(measure("once more", lambda: send(mirror)))
        if given.bucket:
            store = Store(Path(folder), on_disk=True)
            os.environ["BOTO_CONFIG"] = str(store.boto)
            try:
                store.make_bucket("publishing")
                with Bucket.opened("gs://publishing/models") as there:
                    rows.append(measure("publish to a bucket", lambda: send(there)))
                    rows.append(measure("once more", lambda: send(there)))
            finally:
                store.stop()
        size = sum(path.stat().st_size for path in archives)
    table = markdown_table(("what", "#s", "#GB read", "#bytes sent"), rows)
    sys.stdout.write(f"{len(models)} models, packed to {size:,} bytes\n\n{table}\n")


if __name__ == "__main__":
    main()
