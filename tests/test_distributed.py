"""Pictures distributed over a Ray cluster: the answers are those of one process, and what is killed loses nothing."""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from command import run
from PIL import Image

from convert.pipeline import distributed
from convert.pipeline.accuracy import BATCH
from convert.pipeline.process import descendants
from models.catalog import TESTING_HANDLES
from models.errors import MixerError, UsageError

CLUSTER = """\
import sys
from ray.cluster_utils import Cluster

node = {"num_cpus": 1, "object_store_memory": 256 << 20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=node)
second = cluster.add_node(**node)
print(cluster.address, flush=True)
sys.stdin.readline()
cluster.remove_node(second, allow_graceful=False)
sys.stdin.readline()
cluster.shutdown()
"""
CLASSIFIER = next(iter(TESTING_HANDLES))
BATCHES = 8


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Folders of class indices with some batches of pictures that take long to decode; one cannot be read."""
    directory = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(7)
    drawn = []
    for number in range(8):
        small = Image.fromarray(rng.integers(0, 256, (16, 20, 3), np.uint8))
        drawn.append(directory / f"{number}.jpg.drawn")
        small.resize((1600, 1500)).save(drawn[-1], "JPEG")
    for number in range(BATCHES * BATCH - 5):
        folder = directory / str(number % 4)
        folder.mkdir(exist_ok=True)
        os.link(drawn[number % len(drawn)], folder / f"{number:03}.jpg")
    for path in drawn:
        path.unlink()
    broken = directory / "2" / "002.jpg"
    broken.unlink()
    broken.write_bytes(b"broken")
    return directory


@pytest.fixture(scope="module")
def expected(pictures, tiny_build, tmp_path_factory):
    """What one process answers."""
    folder = tmp_path_factory.mktemp("expected")
    process = started("accuracy", pictures, tiny_build, folder)
    return ended(process, folder)


def started(command, pictures, build, folder, *options, **variables):
    """Start a command in a process of its own, in a folder that relative paths are meant from."""
    variables |= {"MIXER_JAX2TF_CACHE": str(folder / "cache"), "TMPDIR": str(folder / ("long" * 20))}
    environment = os.environ | variables
    Path(environment["TMPDIR"]).mkdir(parents=True, exist_ok=True)
    data = ["--data"] if command == "accuracy" else []
    given = [*data, os.path.relpath(pictures, folder), "--out", os.path.relpath(build, folder), *options, "--json"]
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "convert", command, CLASSIFIER, *given], cwd=folder, stdout=out, stderr=err,
            env=environment,
        )  # fmt: skip


def ended(process, folder):
    """Return what a command printed, but for the times; one picture is broken."""
    status, said = process.wait(300), (folder / "err").read_text()
    assert status == 1, said
    assert "002.jpg: not a picture" in said
    assert "Traceback" not in said
    assert "Ray" not in said
    found = json.loads((folder / "out").read_text())
    for one in (found, *found.get("backends", ())):
        for key in ("reading_seconds", "seconds", "pictures_per_second", "data", "path"):
            one.pop(key, None)
    return found


def wait_for_batches(folder, count, process):
    until = time.monotonic() + 200
    while time.monotonic() < until:
        assert process.poll() is None, (folder / "err").read_text()
        if sum(len(path.read_text().splitlines()) for path in (folder / "cache").glob(".accuracy/*.jsonl")) >= count:
            return
        time.sleep(0.05)
    pytest.fail((folder / "err").read_text())


def workers(name):
    """Return the process ids of Ray's workers of that name among the descendants of this process."""
    found = []
    for pid in descendants():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if line.startswith(f"ray::{name}".encode()):
            found.append(pid)
    return found


@contextmanager
def two_nodes():
    """Yield the process of a cluster of two nodes, and its address."""
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as short,  # the paths of sockets may have 107 bytes
        subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"RAY_TMPDIR": short, "RAY_USAGE_STATS_ENABLED": "0"},
        ) as cluster,
    ):
        try:
            yield cluster, cluster.stdout.readline().strip()
        finally:
            cluster.stdin.close()


@pytest.mark.ray
def test_a_killed_worker_and_a_killed_node_lose_nothing(pictures, tiny_build, expected, tmp_path):
    token = {"RAY_AUTH_TOKEN": "a" * 32}  # which this cluster does not ask for
    with two_nodes() as (cluster, address):
        process = started("accuracy", pictures, tiny_build, tmp_path, "--ray", address, **token)
        wait_for_batches(tmp_path, 1, process)
        os.kill(workers("MapWorker")[0], signal.SIGKILL)
        wait_for_batches(tmp_path, 2, process)
        cluster.stdin.write("remove the second node\n")
        cluster.stdin.flush()
        assert ended(process, tmp_path) == expected


TALKATIVE = """\
from convert.pipeline import distributed
with distributed._cluster("local"):
    from ray._private.worker import print_to_stdstream
    for node in ("one", "other"):  # Ray holds back the second, which is alike
        said = {"lines": ["a task failed and is tried again"], "pid": "raylet", "ip": node, "is_err": False}
        print_to_stdstream(said, ignore_prefix=False)
print("the result")
"""


DYING = """\
import os
import signal
import sys
from pathlib import Path
from convert.pipeline import distributed
from models.errors import MixerError

class Dying:
    takes = [("images", "float32", (1, 8, 8, 3))]

    def __init__(self, workers, folder):
        self.workers, self.folder = workers, folder

    def open(self):  # the first workers to open the models end while they do
        for number in range(self.workers):
            try:
                Path(self.folder, str(number)).touch(exist_ok=False)
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)

    def read(self, batch, size):
        return batch + size

    def answer(self, models, read):
        return 2 * read

distributed._SETTINGS["RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S"] = sys.argv[3]
dying = Dying(int(sys.argv[1]), sys.argv[2])
try:
    print(*distributed._run_on_ray("local", dying, [dying], [1, 2, 3]))
except MixerError as error:
    print(error)
"""


@pytest.mark.ray
@pytest.mark.parametrize(
    ("workers", "patience", "expected"),
    [(1, 600, "18 20 22\n"), (99, 20, "the cluster could not finish: Dataset execution made no progress")],
)
def test_workers_that_end_while_they_load_are_replaced_but_not_for_ever(tmp_path, workers, patience, expected):
    command = [sys.executable, "-c", DYING, str(workers), tmp_path, str(patience)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(expected)
    assert done.stderr == ""
    assert len(list(tmp_path.iterdir())) in range(1, workers + 1)


@pytest.mark.ray
def test_what_ray_says_until_it_has_shut_down_is_not_on_standard_output():
    done = subprocess.run([sys.executable, "-c", TALKATIVE], capture_output=True, text=True, check=True)
    assert done.stdout == "the result\n"


@pytest.mark.ray
def test_a_cluster_on_this_machine_classifies_as_one_process(pictures, tiny_build, tmp_path):
    found = []
    for options in ((), ("--ray", "local")):
        process = started("classify", pictures / "2", tiny_build, tmp_path, *options)
        found.append(ended(process, tmp_path))
    assert len(found[0]["pictures"]) > BATCH
    assert found[0] == found[1]
    assert workers("") == []


@pytest.mark.ray
def test_a_cluster_that_asks_for_a_token_is_connected_to_with_it(pictures, tiny_build, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    ray, node = str(Path(sys.executable).with_name("ray")), ("--num-cpus=1", f"--object-store-memory={256 << 20}")
    head = (ray, "start", "--head", "--block", "--include-dashboard=false", "--node-ip-address=127.0.0.1", *node)
    asking = os.environ | {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    subprocess.run([ray, "get-auth-token", "--generate"], env=asking, check=True, capture_output=True)
    given, others = ("classify", pictures / "2", tiny_build, tmp_path), descendants()
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as short,  # the paths of sockets may have 107 bytes
        subprocess.Popen([*head, f"--port={port}", "--temp-dir", short], env=asking, stdout=subprocess.DEVNULL),
    ):
        try:
            wait_for_port(port)
            address = ("--ray", f"127.0.0.1:{port}")
            found = ended(started(*given, *address, HOME=str(tmp_path)), tmp_path)
            assert found == ended(started(*given), tmp_path)
            (tmp_path / "nobody").mkdir()
            assert started(*given, *address, HOME=str(tmp_path / "nobody")).wait(100) == 1
            assert "~/.ray/auth_token must be that of its head" in (tmp_path / "err").read_text()
        finally:
            for pid in descendants() - others:  # to end them by a signal takes 30 seconds
                os.kill(pid, signal.SIGKILL)


@pytest.mark.ray
def test_a_cluster_that_ends_is_named(pictures, tiny_build, tmp_path):
    others = descendants()
    with two_nodes() as (_, address):
        nodes = descendants() - others
        process = started("accuracy", pictures, tiny_build, tmp_path, "--ray", address)
        wait_for_batches(tmp_path, 1, process)
        for pid in nodes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert process.wait(200) == 1
    said = (tmp_path / "err").read_text()
    assert f"the connection to the Ray cluster {address} was lost: check that it is running, and run the same" in said
    assert "Traceback" not in said


def wait_for_port(port):
    until = time.monotonic() + 100
    while time.monotonic() < until:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.2)
    return pytest.fail(f"nothing listens at port {port}")


@pytest.mark.ray
def test_an_interrupted_run_leaves_no_process_and_goes_on_in_one(pictures, tiny_build, expected, tmp_path):
    process = started("accuracy", pictures, tiny_build, tmp_path, "--ray", "local")
    wait_for_batches(tmp_path, 1, process)
    cluster = descendants()
    process.terminate()
    assert process.wait(60) == 143
    until = time.monotonic() + 30
    while left := [pid for pid in cluster if Path(f"/proc/{pid}").exists()]:  # the kernel may still be ending them
        assert time.monotonic() < until, left
        time.sleep(0.1)
    assert ended(started("accuracy", pictures, tiny_build, tmp_path), tmp_path) == expected
    assert "of an interrupted run" in (tmp_path / "err").read_text()


@pytest.fixture
def closed():
    """A port that nothing listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("command", ["accuracy", "classify"])
def test_an_address_where_nothing_is_is_refused_before_any_work(tiny_build, pictures, closed, capfd, command):
    data = ("--data", pictures) if command == "accuracy" else (pictures,)
    for address, said in (
        (f"127.0.0.1:{closed}", "cannot be reached"),
        ("127.0.0.1:99999", "cannot be reached"),
        ("nonsense", "is not an address"),
        ("ray://127.0.0.1:1", "is not an address"),
    ):
        status, out, err = run(capfd, command, CLASSIFIER, *data, "--out", tiny_build, "--ray", address)
        assert (status, out) == (2, "")
        assert f"--ray {address} {said}" in err
        assert "expected HOST:PORT of a running Ray cluster" in err


def test_without_ray_the_extra_is_named(tiny_build, pictures, capfd, monkeypatch):
    monkeypatch.setattr(distributed, "find_spec", lambda _: None)
    status, _, err = run(capfd, "classify", CLASSIFIER, pictures, "--out", tiny_build, "--ray", "local")
    assert (status, "install the extra ray of this project" in err) == (2, True)


def test_standard_input_is_not_read_on_a_worker(tiny_build, capfd):
    status, _, err = run(capfd, "classify", CLASSIFIER, "-", "--out", tiny_build, "--ray", "local")
    assert (status, "which have no standard input: give files" in err) == (2, True)


class Failing:
    """Work that fails wherever it is done."""

    def __init__(self, error):
        self._error = error

    def read(self, *_):
        raise self._error

    open = answer = read


@pytest.mark.parametrize(
    ("error", "expected"), [(UsageError("said"), "^said"), (ValueError("odd"), "unexpected ValueError on .*: odd")]
)
def test_what_fails_on_a_worker_is_raised_where_the_run_was_started(error, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_raised(Failing(error), tmp_path, expected)


def test_a_node_that_does_not_see_the_working_directory_is_named(tmp_path):
    nowhere = tmp_path / "nowhere"
    assert_raised(
        Failing(ValueError()), nowhere, f"{nowhere} cannot be entered on .* every node must see the same files"
    )


def assert_raised(work, folder, expected):
    row = distributed._read(work, 8, str(folder), {"batch": pickle.dumps([])})
    answer = distributed._Actor(work, str(folder), False)(row)["answer"]
    with pytest.raises(MixerError, match=expected):
        distributed._found(pickle.loads(answer))  # noqa: S301
    with pytest.raises(MixerError, match=expected):
        distributed._found(pickle.loads(row["read"]))  # noqa: S301
