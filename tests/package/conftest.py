import pytest

from debian import Root, build


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    return build(tmp_path_factory.mktemp("package"), "0.1.0~test1")


@pytest.fixture(scope="session")
def next_package(tmp_path_factory):
    return build(tmp_path_factory.mktemp("next-package"), "0.1.0~test2")


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    directory = tmp_path_factory.mktemp("root")
    # Prosody's user needs access to the directory.
    for parent in [directory, *directory.parents][:3]:
        parent.chmod(0o755)
    return Root(directory)
