"""Real environments, made by uv from an index of the test's own: what they hold, when they are made anew."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import unittest
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from unittest import mock

import msgspec

from ciapp.errors import InstallError, ProjectError, StaleAttemptError
from ciapp.settings import InstallSettings, Settings
from ciapp.testing import uv
from ciapp.testing.checkout import Checkout
from ciapp.testing.environment import Interpreter, default_python
from ciapp.testing.install import InstallSetting
from ciapp.testing.interpreters import find_interpreters
from ciapp.testing.preparation import Environment, prepare_environment
from ciapp.testing.program import run_program
from tests.support.git_repositories import new_folder
from tests.support.package_index import PackageIndex, project_files, wheel
from tests.support.processes import processes_with
from tests.support.sandboxes import HAS_BUBBLEWRAP, WEAK, Place
from tests.support.services import need

ONCE = {"UV_HTTP_RETRIES": "0"}


class PreparationCase(unittest.TestCase):
    def setUp(self):
        if not HAS_BUBBLEWRAP:
            need("bubblewrap", "it does not work on this host")
        self.index = PackageIndex(self, wheel("alpha"), wheel("beta"))
        self.place = Place(self)
        self.settings = Settings(
            state_dir=str(self.place.state), install=InstallSettings(index_url=self.index.url)
        )
        # One try is as good as three, where nobody mends the index in between.
        self.enterContext(mock.patch.object(uv, "RETRY_AFTER_S", ()))
        self.enterContext(mock.patch.dict(os.environ, ONCE))

    def set_install(self, **values: object) -> None:
        install = msgspec.structs.replace(self.settings.install, **values)
        self.settings = msgspec.structs.replace(self.settings, install=install)

    def commit(self, files: Mapping[str, str]) -> tuple[Checkout, str]:
        """A checkout of a commit of these files beside those of the last, and its tree."""
        commit = self.place.origin.commit("Change", files)
        tree = self.place.origin.git("rev-parse", f"{commit}^{{tree}}")
        return self.place.check_out(commit), tree

    @contextmanager
    def prepared(
        self,
        files: Mapping[str, str],
        install: InstallSetting = "auto",
        *,
        stop: bool = False,
        interpreter: Interpreter | None = None,
    ) -> Iterator[Environment]:
        checkout, tree = self.commit(files)
        self.checkout = checkout
        with prepare_environment(
            self.place.slot,
            checkout,
            install,
            self.settings,
            tree=tree,
            interpreter=interpreter or default_python(),
            should_stop=lambda: stop,
        ) as environment:
            yield environment

    def evaluate(self, environment: Environment, expression: str) -> object:
        """What an expression is under the environment's Python in the sandbox, modules as it needs them."""
        script = f"import json, os, sys, importlib\nprint(json.dumps({expression}))"
        ended = run_program(
            self.place.open(self.checkout),
            [str(environment.python), "-c", script],
            environment=environment.variables,
            readable=environment.readable,
            timeout_s=60,
            should_stop=lambda: False,
        )
        self.assertEqual((0, ""), (ended.status, ended.breach), ended.output)
        return json.loads(ended.output.splitlines()[-1])

    def refused(
        self, files: Mapping[str, str], sentence: str, install: InstallSetting = "auto"
    ) -> ProjectError:
        with self.assertRaises(ProjectError) as caught, self.prepared(files, install):
            pass
        self.assertEqual(sentence, str(caught.exception))
        return caught.exception


class TestRequirements(PreparationCase):
    def test_without_requirements_the_interpreter_is_bare(self):
        with self.prepared({"app.py": ""}) as environment:
            self.assertEqual(default_python().python, environment.python)
            self.assertEqual(
                "nothing is installed: the commit declares no dependencies", environment.explanation
            )

    def test_each_python_has_an_environment_of_its_own(self):
        files = {"requirements.txt": "alpha\n"}
        found = set()
        pythons = find_interpreters(self.settings).interpreters
        for version in list(pythons)[-2:]:
            for _ in range(2):
                with self.prepared(files, interpreter=pythons[version]) as environment:
                    said = self.evaluate(environment, "importlib.import_module('platform').python_version()")
                    self.assertEqual(pythons[version].version, said)
                    self.assertEqual(
                        "1.0", self.evaluate(environment, "importlib.import_module('alpha').VERSION")
                    )
                    found.add(environment.python)
        self.assertEqual(min(2, len(pythons)), len(found))

    def test_what_files_name_is_installed_and_found_again(self):
        files = {"requirements.txt": "alpha\n"}
        with self.prepared(files) as first:
            self.assertEqual("installed: requirements.txt", first.explanation)
            self.assertEqual("1.0", self.evaluate(first, "importlib.import_module('alpha').VERSION"))
            venv = str(first.python.parent.parent)
            self.assertEqual(
                [venv, f"{venv}/bin"], self.evaluate(first, "[sys.prefix, os.environ['PATH'].split(':')[0]]")
            )
        self.index.stop()
        with self.prepared({**files, "app.py": "X = 1"}) as second:
            self.assertEqual(first.python, second.python)

    def test_another_content_is_another_environment(self):
        with self.prepared({"requirements.txt": "-r more/all.txt\n", "more/all.txt": "alpha\n"}) as first:
            pass
        with self.prepared({"more/all.txt": "alpha\nbeta\n"}) as second:
            self.assertNotEqual(first.python, second.python)
            self.assertEqual("1.0", self.evaluate(second, "importlib.import_module('beta').VERSION"))

    def test_a_package_that_does_not_exist_is_the_commits_fault(self):
        error = self.refused(
            {"requirements.txt": "gamma\n"},
            "the environment cannot be installed: Because gamma was not found in the package registry and "
            "you require gamma, we can conclude that your requirements are unsatisfiable.",
        )
        self.assertIn("error: No solution found", error.output)
        self.assertEqual([], list((self.place.state / "install" / "building").iterdir()))

    def test_tests_cannot_write_to_it(self):
        with self.prepared({"requirements.txt": "alpha\n"}) as environment:
            module = "importlib.import_module('alpha').__file__"
            self.assertIs(False, self.evaluate(environment, f"os.access({module}, os.W_OK)"))
            self.assertIs(
                True,
                self.evaluate(environment, "os.path.exists(importlib.import_module('alpha').__cached__)"),
            )

    def test_a_wheel_of_the_commit_is_installed(self):
        name, content = wheel("gamma", "3.0")
        file = self.place.origin.path / name
        file.write_bytes(content)
        with self.prepared({}, [f"./{name}"]) as environment:
            self.assertEqual("3.0", self.evaluate(environment, "importlib.import_module('gamma').VERSION"))

    def test_it_stops_when_the_run_is_stopped(self):
        with self.assertRaises(StaleAttemptError), self.prepared({"requirements.txt": "alpha\n"}, stop=True):
            pass
        self.assertEqual([], processes_with(str(self.place.state)))


class TestRegistry(PreparationCase):
    def test_one_that_does_not_answer_is_ours(self):
        self.index.status = 503
        with self.assertRaises(InstallError) as caught, self.prepared({"requirements.txt": "alpha\n"}):
            pass
        self.assertRegex(
            str(caught.exception), "the package registry does not answer: .*; check \\[install\\]"
        )

    def test_it_is_asked_again_after_a_while(self):
        self.index.status = 503
        answers = iter([503, 200])

        def mend(_: object, pause_s: float) -> None:
            self.assertIn(pause_s, (2.0, 10.0))
            self.index.status = next(answers)

        with (
            mock.patch.object(uv, "RETRY_AFTER_S", (2.0, 10.0)),
            mock.patch.object(uv.Uv, "_pause", mend),
            self.prepared({"requirements.txt": "alpha\n"}) as environment,
        ):
            self.assertEqual("1.0", self.evaluate(environment, "importlib.import_module('alpha').VERSION"))

    def test_what_was_downloaded_before_does_without_it(self):
        with self.prepared({"requirements.txt": "alpha\n"}):
            pass
        with self.prepared({"requirements.txt": "beta\n"}):
            pass
        self.index.stop()
        with self.prepared({"requirements.txt": "alpha\nbeta\n"}) as environment:
            self.assertRegex(
                environment.explanation, "requirements.txt(; from what was downloaded before.*)?$"
            )
            self.assertEqual("1.0", self.evaluate(environment, "importlib.import_module('beta').VERSION"))

    def test_its_password_reaches_uv_and_nothing_else(self):
        self.index.password = "open-sesame"
        with self.assertRaises(InstallError) as caught, self.prepared({"requirements.txt": "alpha\n"}):
            pass
        self.assertRegex(str(caught.exception), "the package registry does not answer")
        self.set_install(index_url=self.index.url)
        spy = "assert 'sesame' not in repr(__import__('os').environ)"
        files = project_files(before=spy, pyproject='dependencies = ["alpha"]\n')
        with self.prepared(files) as environment:
            self.assertNotIn("sesame", str(self.evaluate(environment, "dict(os.environ)")))
            holder = environment.python.parents[2]
            self.assertEqual(
                [], [file for file in holder.rglob("*") if file.is_file() and b"sesame" in file.read_bytes()]
            )

    def test_no_commit_can_have_a_password_sent_elsewhere(self):
        """uv puts variables of its environment into the URLs of requirements files."""
        self.index.password = "open-sesame"
        self.set_install(index_url=self.index.url, extra_index_urls=self.index.url)
        elsewhere = PackageIndex(self)
        wanted = "gamma @ " + elsewhere.url.replace("/simple", "/gamma-1.0-py3-none-any.whl?")
        names = ("UV_DEFAULT_INDEX", "UV_INDEX", "HTTPS_PROXY", "https_proxy", "ALL_PROXY")
        proxies = dict.fromkeys(("HTTPS_PROXY", "ALL_PROXY"), "http://ann:open-sesame@proxy.example:3128")
        with mock.patch.dict(os.environ, {**proxies, "NO_PROXY": "127.0.0.1"}):
            for name in names:
                elsewhere.requests.clear()
                with (
                    self.subTest(name),
                    self.assertRaises(ProjectError) as caught,
                    self.prepared({"requirements.txt": f"{wanted}${{{name}}}\n"}),
                ):
                    pass
                self.assertTrue(elsewhere.requests, str(caught.exception))
                said = caught.exception.output + str(caught.exception)
                self.assertNotIn("sesame", said + "".join(elsewhere.requests))

    def test_no_commit_can_have_it_read_from_uvs_configuration(self):
        """It stands beside the requirements file, where a line more in that could name it."""
        self.index.password = "open-sesame"
        self.set_install(index_url=self.index.url)
        said = r"is no requirement of one line; write it as one$"
        marker = "os_name == 'posix'\\n-r uv.toml"
        files = project_files(
            metadata="Requires-Dist: inner\n",
            pyproject='dependencies = ["inner"]\n[tool.uv.sources]\n'
            f'inner = {{ path = "libs", marker = "{marker}" }}\n',
        )
        files |= {f"libs/{name}": text for name, text in project_files().items()}
        bare = '[project]\nname = "a"\nversion = "1"\ndependencies = ["-r /proc/self/environ"]\n'
        build = '[build-system]\nrequires = ["-r uv.toml"]\nbuild-backend = "x"\n[project]\nname = "a"\n'
        for case in (
            files,
            {"pyproject.toml": bare},
            {"pyproject.toml": build},
            project_files(requires=["-r uv.toml"]),
            project_files(requires=["alpha\n-r uv.toml"]),
        ):
            with (
                self.subTest(case["pyproject.toml"]),
                self.assertRaisesRegex(ProjectError, said) as caught,
                self.prepared(case),
            ):
                pass
            self.assertNotIn("sesame", caught.exception.output + str(caught.exception))

    def test_a_password_is_not_told_in_a_failure(self):
        self.index.password = "open-sesame"
        self.set_install(index_url=self.index.url)
        with self.assertRaises(ProjectError) as caught, self.prepared({"requirements.txt": "gamma\n"}):
            pass
        self.assertNotIn("sesame", caught.exception.output + str(caught.exception))
        self.index.status = 503
        with self.assertRaises(InstallError) as trouble, self.prepared({"requirements.txt": "beta\n"}):
            pass
        self.assertNotIn("sesame", str(trouble.exception))


class TestLock(PreparationCase):
    """A project whose uv.lock names the first of two versions of what it requires."""

    def setUp(self) -> None:
        super().setUp()
        self.files = project_files(
            metadata="Requires-Dist: alpha\n",
            pyproject='dependencies = ["alpha"]\nrequires-python = ">=3.8"\n',
        )
        self.files |= {"uv.lock": self.lock(self.files["pyproject.toml"])}
        self.index.add(wheel("alpha", "2.0"))

    def lock(self, pyproject: str) -> str:
        folder = new_folder(self)
        (folder / "pyproject.toml").write_text(pyproject)
        words = ["lock", "--quiet", "--no-cache", "--no-config", "--default-index", self.index.url]
        subprocess.run([uv.uv_program(), *words], cwd=folder, check=True)
        return (folder / "uv.lock").read_text()

    def version(self, environment: Environment) -> object:
        return self.evaluate(environment, "importlib.import_module('alpha').VERSION")

    def test_its_versions_are_installed_and_a_commit_that_changes_code_alone_asks_nobody(self):
        with self.prepared(self.files) as first:
            self.assertEqual("1.0", self.version(first))
            self.assertRegex(first.explanation, "; versions as uv.lock has them$")
        self.index.stop()
        with self.prepared({"src/project/code.py": "ANSWER = 43\n"}) as second:
            self.assertEqual(first.python, second.python)

    def test_another_lock_is_another_environment(self):
        with self.prepared(self.files):
            pass
        with self.prepared({"uv.lock": self.lock(self.files["pyproject.toml"])}) as second:
            self.assertEqual("2.0", self.version(second))

    def test_without_a_package_its_requirements_are_locked_too(self):
        project = '[project]\nname = "project"\nversion = "1"\nrequires-python = ">=3.8"\n'
        project += 'dependencies = ["alpha"]\n'
        with self.prepared({"pyproject.toml": project, "uv.lock": self.files["uv.lock"]}) as environment:
            self.assertEqual("1.0", self.version(environment))

    def test_a_file_with_another_hash_is_not_installed(self):
        file = 'alpha-1.0-py3-none-any.whl"'
        self.assertIn(file, self.files["uv.lock"])
        self.files["uv.lock"] = self.files["uv.lock"].replace(file, f'{file}, hash = "sha256:{"0" * 64}"')
        with self.assertRaises(ProjectError) as caught, self.prepared(self.files):
            pass
        self.assertIn("Hash mismatch for `alpha==1.0`", caught.exception.output)

    def test_one_that_uv_cannot_read_is_the_commits_fault(self):
        with (
            self.assertRaisesRegex(ProjectError, "^uv.lock cannot be used: TOML parse error"),
            self.prepared(self.files | {"uv.lock": "version = \n"}),
        ):
            pass

    def test_folders_of_the_commit_are_installed_with_it(self):
        member = project_files()
        backend = member["building/backend.py"]
        for old, new in (
            ("project-1.0", "inner-1.0"),
            ("project.pth", "inner.pth"),
            ("Name: project", "Name: inner"),
        ):
            backend = backend.replace(old, new)
        pyproject = member["pyproject.toml"].replace('name = "project"', 'name = "inner"')
        root = self.files | project_files(
            metadata="Requires-Dist: inner\n",
            pyproject='dependencies = ["inner"]\n[tool.uv.sources]\ninner = { path = "libs/inner" }\n',
        )
        del root["uv.lock"]
        files = root | {
            "libs/inner/pyproject.toml": pyproject,
            "libs/inner/building/backend.py": backend,
            "libs/inner/src/inner.py": "PLACE = __file__\n",
        }
        with self.prepared(files) as environment:
            self.assertRegex(environment.explanation, "; of this commit: libs/inner$")
            self.assertEqual(
                "/checkout/libs/inner/src/inner.py",
                self.evaluate(environment, "importlib.import_module('inner').PLACE"),
            )


class TestProject(PreparationCase):
    ANSWER = "importlib.import_module('project.code').ANSWER"

    def test_a_commit_that_changes_code_alone_makes_no_new_environment(self):
        with self.prepared(project_files(pyproject='dependencies = ["alpha"]\n')) as first:
            self.assertEqual("installed: the project, as pyproject.toml has it", first.explanation)
            self.assertEqual(42, self.evaluate(first, self.ANSWER))
        with self.prepared({"src/project/code.py": "ANSWER = 43\n", "src/project/more.py": ""}) as second:
            self.assertEqual(first.python, second.python)
            self.assertEqual(43, self.evaluate(second, self.ANSWER))

    def test_a_commit_that_changes_the_build_does(self):
        with self.prepared(project_files()) as first:
            pass
        for changed in (
            {"pyproject.toml": project_files(pyproject='description = "x"\n')["pyproject.toml"]},
            {"building/more.py": "X = 1"},
            {"src/project/__init__.py": '__version__ = "2"\n'},
            {"MANIFEST.in": "include x"},
            {"src/other/__init__.py": ""},
        ):
            with self.subTest(list(changed)), self.prepared(changed) as second:
                self.assertNotEqual(first.python, second.python)
                first = second

    def test_what_the_project_requires_is_installed_again_only_when_that_changes(self):
        requiring = "Requires-Dist: alpha\n"
        with self.prepared(project_files(metadata=requiring)) as first:
            pass
        asked = len(self.index.requests)
        changed = project_files(metadata=requiring, pyproject='description = "x"\n')
        with self.prepared(changed) as second:
            self.assertNotEqual(first.python, second.python)
            self.assertEqual("1.0", self.evaluate(second, "importlib.import_module('alpha').VERSION"))
            self.assertEqual(asked, len(self.index.requests))
            alpha = "lib/python*/site-packages/alpha.py"
            files = [next(one.python.parent.parent.glob(alpha)) for one in (first, second)]
            self.assertTrue(files[0].samefile(files[1]))
        with self.prepared(project_files(metadata=requiring + "Requires-Dist: beta\n")) as third:
            self.assertEqual("1.0", self.evaluate(third, "importlib.import_module('beta').VERSION"))

    def test_a_build_that_reads_code_is_done_for_each_tree(self):
        files = project_files(before="print(open('src/project/code.py').read())")
        with self.prepared(files) as first:
            self.assertRegex(
                first.explanation,
                "made anew for each tree, because its build needs more of the project: .*"
                "Permission denied: 'src/project/code.py'",
            )
        with self.prepared({"src/project/code.py": "ANSWER = 43\n"}) as second:
            self.assertNotEqual(first.python, second.python)
            self.assertEqual(43, self.evaluate(second, self.ANSWER))
        with self.prepared({"src/project/code.py": "ANSWER = 42\n"}) as third:
            self.assertEqual(first.python, third.python)

    def test_code_of_one_commit_does_not_get_into_the_environment_of_others(self):
        """A build that would run code which the key does not cover finds none."""
        run = (
            "exec(open('src/project/code.py').read()) if os.access('src/project/code.py', os.R_OK) else None"
        )
        leak = "ANSWER = 1\nimport pathlib; pathlib.Path('src/leak.py').write_text('LEAK = 1')\n"
        with self.prepared(project_files(before=run) | {"src/project/code.py": leak}) as first:
            self.assertIs(False, self.evaluate(first, "os.path.exists('src/leak.py')"))
        with self.prepared({"src/project/code.py": "ANSWER = 2\n"}) as second:
            self.assertEqual(first.python, second.python)
            self.assertIs(False, self.evaluate(second, "os.path.exists('src/leak.py')"))

    def test_files_that_a_build_makes_among_the_sources_are_in_each_checkout(self):
        files = project_files(before="pathlib.Path('src/project/made.py').write_text('MADE = 7')")
        with self.prepared(files) as first:
            self.assertEqual(7, self.evaluate(first, "importlib.import_module('project.made').MADE"))
        with self.prepared({"src/project/code.py": "ANSWER = 43\n"}) as second:
            self.assertEqual(first.python, second.python)
            self.assertEqual(7, self.evaluate(second, "importlib.import_module('project.made').MADE"))

    def test_made_files_do_not_follow_links_out_of_the_checkout(self):
        """The overlay of an environment meets another commit, which has a link where a file was made."""
        outside = self.place.state.parent / "outside"
        outside.write_text("untouched")
        outside.chmod(0o666)
        folder = self.place.origin.path / "src/project/deep"
        folder.mkdir(parents=True)
        (folder / "code.py").touch()
        make = "pathlib.Path('src/project/deep/made.txt').write_text('made')"
        with self.prepared(project_files(before=make)) as first:
            pass
        (folder / "made.txt").symlink_to(outside)
        with self.prepared({}) as second:
            self.assertEqual(first.python, second.python)
            self.assertEqual("made", (self.checkout.path / "src/project/deep/made.txt").read_text())
            self.assertEqual("untouched", outside.read_text())

    def test_its_extra_is_installed_with_what_that_asks_for(self):
        extra = "Provides-Extra: test\nRequires-Dist: beta; extra == 'test'\n"
        pyproject = 'dynamic = ["optional-dependencies"]\n'
        with self.prepared(project_files(metadata=extra, pyproject=pyproject)) as environment:
            self.assertEqual("1.0", self.evaluate(environment, "importlib.import_module('beta').VERSION"))

    def test_build_requirements_that_the_backend_asks_for_are_there(self):
        files = project_files(requires=["alpha"], before="import alpha")
        with self.prepared(files):
            pass

    def test_a_backend_that_always_asks_for_more_is_refused(self):
        self.index.add(wheel("liar", files={"other.py": ""}))
        files = project_files()
        files["building/backend.py"] = files["building/backend.py"].replace(
            "return []", "return ['nothing-' * 1 + 'here']"
        )
        self.index.add(wheel("nothing_here", files={"x.py": ""}))
        with self.prepared(files):
            pass
        files["building/backend.py"] = files["building/backend.py"].replace(
            "return ['nothing-' * 1 + 'here']", "return ['alpha; python_version < \"3\"']"
        )
        with (
            self.assertRaisesRegex(ProjectError, "its build backend always asks for more"),
            self.prepared(files),
        ):
            pass

    def test_a_build_that_fails_is_the_commits_fault(self):
        error = self.refused(
            project_files(before="raise SystemExit('the build says no')"),
            "the project cannot be built: the build says no",
        )
        self.assertIn("the build says no", error.output)

    def test_a_build_that_claims_a_wheel_it_did_not_make_is_refused(self):
        for name in ("../../x-1-py3-none-any.whl", "x-1-py3-none-any.whl", "x.whl", ""):
            files = project_files()
            files["building/backend.py"] = files["building/backend.py"].replace(
                "return name", f"return {name!r}"
            )
            with (
                self.subTest(name),
                self.assertRaisesRegex(ProjectError, "the project cannot be built"),
                self.prepared(files),
            ):
                pass

    def test_a_wheel_that_is_a_link_is_not_followed(self):
        secret = self.place.state.parent / "secret"
        secret.write_text("secret")
        name = "a-1-py3-none-any.whl"
        link = f"os.symlink({str(secret)!r}, os.path.join(wheel_directory, {name!r})); return {name!r}"
        with (
            self.assertRaisesRegex(ProjectError, "is no wheel: .*Too many levels of symbolic links"),
            self.prepared(project_files(before=link)),
        ):
            pass

    def test_a_build_has_no_network_and_no_sight_of_the_downloads(self):
        port = self.index.url.partition("127.0.0.1:")[2].partition("/")[0]
        downloads = self.place.state / "install" / "cache"
        spy = (
            f"import socket; assert socket.socket().connect_ex(('127.0.0.1', {port})); "
            f"assert not os.path.exists({str(downloads)!r})"
        )
        with self.prepared(project_files(before=spy, pyproject='dependencies = ["alpha"]\n')):
            self.assertTrue(downloads.exists())

    def test_one_that_is_not_editable_is_made_for_its_tree(self):
        files = project_files()
        files["building/backend.py"] = files["building/backend.py"].replace("_editable", "_wheel")
        with self.prepared(files) as environment:
            self.assertRegex(environment.explanation, "because its build knows no editable installation$")
        with self.prepared({}, ["."]) as environment:
            self.assertRegex(environment.explanation, "because '.' is not installed editable$")


class TestSource(PreparationCase):
    def setUp(self):
        super().setUp()
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w:gz") as archive:
            files = project_files() | {"PKG-INFO": "Metadata-Version: 2.1\nName: project\nVersion: 1.0\n"}
            files["building/backend.py"] = files["building/backend.py"].replace("_editable", "_wheel")
            for name, text in files.items():
                entry = tarfile.TarInfo(f"project-1.0/{name}")
                entry.size = len(text.encode())
                archive.addfile(entry, io.BytesIO(text.encode()))
        self.index.add(("project-1.0.tar.gz", content.getvalue()))

    def test_what_has_no_wheel_needs_a_grant(self):
        self.refused(
            {"requirements.txt": "project\n"},
            "there is no wheel of project; building it needs the network, which [install] network in the "
            "server's settings does not grant",
        )

    def test_with_the_grant_it_is_built_in_the_sandbox(self):
        self.set_install(network=True)
        with self.prepared({"requirements.txt": "project\nalpha\n"}) as environment:
            self.assertRegex(
                environment.explanation, "built from source, because there is no wheel of project"
            )
            self.assertEqual("1.0", self.evaluate(environment, "importlib.import_module('alpha').VERSION"))
            if os.geteuid() == 0:
                self.assertEqual(0, environment.python.parents[2].stat().st_uid)


class TestWithoutBubblewrap(PreparationCase):
    def setUp(self):
        super().setUp()
        self.settings = msgspec.structs.replace(self.settings, sandbox=WEAK)
        self.place.setting = WEAK

    def test_a_project_is_editable_there_too(self):
        with self.prepared(project_files(pyproject='dependencies = ["alpha"]\n')) as environment:
            self.assertEqual(42, self.evaluate(environment, TestProject.ANSWER))
            where = "importlib.import_module('project').__file__"
            self.assertEqual(
                str(self.checkout.path / "src/project/__init__.py"), self.evaluate(environment, where)
            )


if __name__ == "__main__":
    unittest.main()
