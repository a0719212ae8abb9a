"""What is installed for a commit, and why, from its files alone."""

from __future__ import annotations

import os
import shutil
import tempfile
import unittest
from pathlib import Path

from ciapp.errors import ProjectError
from ciapp.testing.install import Installation, InstallSetting, decide_installation
from ciapp.testing.metadata import read_pyproject
from ciapp.testing.requirements import LocalProject, Requirements
from tests.support.git_repositories import new_folder

PROJECT = '[project]\nname = "team"\nversion = "1"\ndependencies = ["click"]\n'
BUILD = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'


class InstallCase(unittest.TestCase):
    def setUp(self):
        self.checkout = new_folder(self)

    def write(self, **files: str) -> None:
        """Files by name; "tests__requirements_txt" stands for tests/requirements.txt."""
        for name, text in files.items():
            stem, _, suffix = name.replace("__", "/").rpartition("_")
            self.add(f"{stem}.{suffix}", text)

    def add(self, name: str, text: str) -> None:
        file = self.checkout / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def decide(self, install: InstallSetting = "auto") -> Installation:
        return decide_installation(self.checkout, install)

    def requirements(self, *arguments: str) -> Requirements:
        found = self.decide(list(arguments) or "auto").requirements
        self.assertIsNotNone(found)
        assert found is not None
        return found

    def refused(self, sentence: str, *arguments: str) -> None:
        with self.assertRaises(ProjectError) as caught:
            self.decide(list(arguments) or "auto")
        self.assertEqual(sentence, str(caught.exception))


class TestAuto(InstallCase):
    def decided(self, *projects: LocalProject, lines: tuple[str, ...] = (), why: str) -> None:
        decision = self.decide()
        found = decision.requirements
        self.assertEqual((projects, lines), (found.projects, found.lines) if found else ((), ()))
        self.assertEqual(why, decision.explanation)

    def test_a_commit_that_declares_nothing_gets_nothing(self):
        self.add("app.py", "")
        self.decided(why="nothing is installed: the commit declares no dependencies")
        self.assertIsNone(self.decide().requirements)

    def test_a_pyproject_for_tools_alone_declares_nothing(self):
        self.write(pyproject_toml="[tool.ruff]\nline-length = 99\n")
        self.decided(why="nothing is installed: the commit declares no dependencies")

    def test_a_project_is_installed_editable(self):
        self.write(pyproject_toml=PROJECT + BUILD, setup_py="", requirements_txt="six\n")
        self.decided(LocalProject(path="."), why="installed: the project, as pyproject.toml has it")

    def test_a_projects_test_extra_goes_before_its_test_group(self):
        groups = '[dependency-groups]\ntest = ["six"]\n'
        extras = '[project.optional-dependencies]\nTests = ["pluggy"]\n'
        self.write(pyproject_toml=PROJECT + extras + BUILD + groups)
        self.decided(
            LocalProject(path=".", extras=("tests",)),
            why="installed: the project and its extra 'tests', as pyproject.toml has it",
        )
        self.write(pyproject_toml=PROJECT + BUILD + groups)
        self.decided(
            LocalProject(path="."),
            lines=("six",),
            why="installed: the project and its group 'test', as pyproject.toml has it",
        )

    def test_a_group_includes_others(self):
        groups = '[dependency-groups]\ntest = ["six", {include-group = "More_"}]\nmore- = ["pluggy"]\n'
        self.write(pyproject_toml=PROJECT + BUILD + groups)
        self.assertEqual(("six", "pluggy"), self.requirements().lines)

    def test_a_group_that_includes_itself_is_refused(self):
        groups = '[dependency-groups]\ntest = [{include-group = "test"}]\n'
        self.write(pyproject_toml=PROJECT + BUILD + groups)
        self.refused("pyproject.toml: dependency group 'test' includes itself; break the circle")

    def test_extras_that_only_the_build_knows_are_left_to_it(self):
        dynamic = PROJECT.replace("dependencies =", 'dynamic = ["optional-dependencies"]\ndependencies =')
        self.write(pyproject_toml=dynamic + BUILD)
        self.decided(
            LocalProject(path=".", first_of=("test", "tests")),
            why="installed: the project and its extra 'test' or 'tests', if it has one, "
            "as pyproject.toml has it",
        )

    def test_without_a_build_system_only_dependencies_are_installed(self):
        extras = '[project.optional-dependencies]\ntest = ["pluggy", "team[more]"]\nmore = ["six"]\n'
        self.write(pyproject_toml=PROJECT + extras)
        self.decided(
            lines=("click", "pluggy", "six"),
            why="installed: the project's dependencies and its extra 'test' without the project, for by "
            "pyproject.toml it has no [build-system]",
        )

    def test_what_calls_itself_no_package_is_not_installed(self):
        self.write(pyproject_toml=PROJECT + BUILD + "[tool.uv]\npackage = false\n")
        self.assertEqual(((), ("click",)), (self.requirements().projects, self.requirements().lines))
        self.write(pyproject_toml=BUILD + "[tool.poetry]\npackage-mode = false\n")
        self.assertIsNone(self.decide().requirements)

    def test_setup_py_goes_before_requirements_files(self):
        self.write(setup_py="", requirements_txt="six\n")
        self.decided(
            LocalProject(path=".", first_of=("test", "tests")),
            why="installed: the project and its extra 'test' or 'tests', if it has one, as setup.py has it",
        )

    def test_setup_cfg_counts_when_it_describes_a_package(self):
        self.write(setup_cfg="[flake8]\nignore = E1\n")
        self.assertIsNone(self.decide().requirements)
        self.write(setup_cfg="[metadata]\nname = team\n")
        self.assertEqual(1, len(self.requirements().projects))
        self.write(setup_cfg="no section = at all")
        self.assertIsNone(self.decide().requirements)

    def test_requirements_files_are_known_by_their_usual_names(self):
        self.write(requirements_txt="six\n", tests__requirements_txt="pluggy\n", other_txt="click\n")
        self.decided(lines=("six", "pluggy"), why="installed: requirements.txt, tests/requirements.txt")

    def test_what_is_not_read_is_said(self):
        self.write(requirements_txt="six\n", uv_lock="")
        self.assertEqual(
            "installed: requirements.txt; uv.lock is not read, so versions may be others",
            self.decide().explanation,
        )
        sources = '[tool.uv.sources]\nclick = { git = "https://example.org/click" }\n'
        self.write(pyproject_toml=PROJECT + sources, poetry_lock="", pdm_lock="")
        (self.checkout / "uv.lock").unlink()
        self.assertRegex(
            self.decide().explanation,
            "; from the index, whatever tool.uv.sources in pyproject.toml says: click"
            "; poetry.lock, pdm.lock are not read, so versions may be others$",
        )
        self.assertNotIn("not read", self.decide(["six"]).explanation)

    def test_a_pyproject_that_is_none_is_refused(self):
        for text, sentence in (
            ("[project", r"^pyproject.toml:1: not valid TOML: .* \(the file ends there\)$"),
            ("\n[project]\nname = ]", r"^pyproject.toml:3: not valid TOML: .* \(column 8\)$"),
            ("project = 3", "pyproject.toml: project is no table; write \\[project\\]"),
            ("[project]\ndependencies = [3]", "pyproject.toml: project.dependencies is no list of strings"),
            ("[build-system]\nrequires = 'x'", "pyproject.toml: build-system.requires is no list of strings"),
            (
                "[build-system]\nbuild-backend = 'a b'",
                "build-system.build-backend is no name of an object",
            ),
            ("[tool]\nuv.sources = 3", r"tool.uv.sources is no table; write \[tool.uv.sources\]"),
            ("[dependency-groups]\ntest = [3]\n[project]", "dependency-groups.test has an entry that is no"),
        ):
            with self.subTest(text):
                self.write(pyproject_toml=text)
                with self.assertRaisesRegex(ProjectError, sentence):
                    self.decide()

    def test_how_a_project_is_built_is_read_with_the_standards_defaults(self):
        declared = read_pyproject("pyproject.toml", (PROJECT + BUILD).encode()).build
        self.assertEqual(("hatchling.build", ("hatchling",)), (declared.backend, declared.requires))
        legacy = read_pyproject("pyproject.toml", PROJECT.encode()).build
        self.assertEqual("setuptools.build_meta:__legacy__", legacy.backend)


class TestWorkspace(InstallCase):
    """Folders and versions that `[tool.uv.sources]` and uv.lock say."""

    ROOT = (
        '[project]\nname = "team"\ndependencies = ["Inner_One[more]", "lib", "click", "six"]\n'
        + BUILD
        + '[tool.uv.workspace]\nmembers = ["packages/*", "../*", "/etc/*"]\nexclude = ["packages/old"]\n'
        + "[tool.uv.sources]\n"
        + "".join(
            f"{name} = {{ workspace = true }}\n" for name in ("inner-one", "inner-two", "unused", "old")
        )
        + 'lib = { path = "libs/lib", marker = "os_name == \'posix\'" }\nsix = { index = "other" }\n'
        + 'click = { git = "https://example.org/click" }\n'
    )

    def member(self, folder: str, name: str, more: str = "") -> None:
        self.add(f"{folder}/pyproject.toml", f'[project]\nname = "{name}"\n{more}')

    def setUp(self) -> None:
        super().setUp()
        self.write(pyproject_toml=self.ROOT)
        more = '[project.optional-dependencies]\nmore = ["inner-two"]\n'
        self.member("packages/one", "inner.one", 'dependencies = ["beside", "old"]\n' + more)
        self.member("packages/two", "inner-two", 'dependencies = ["inner-one"]\n')
        self.member("packages/unused", "unused")
        self.member("packages/old", "old")
        self.member("libs/lib", "lib")

    def test_what_is_required_of_other_folders_is_installed_from_there(self):
        self.assertEqual(
            {
                LocalProject(path="."),
                LocalProject(path="packages/one"),
                LocalProject(path="packages/two"),
                LocalProject(path="libs/lib", marker="os_name == 'posix'"),
            },
            set(self.requirements().projects),
        )
        self.assertRegex(
            self.decide().explanation,
            "; of this commit: [a-z/]+, [a-z/]+, packages/two"
            "; from the index, whatever tool.uv.sources in pyproject.toml says: .*click",
        )

    def test_a_source_of_a_member_is_its_own(self):
        sources = '[tool.uv.sources]\nbeside = { path = "../../beside", editable = false }\n'
        self.member("packages/one", "inner-one", 'dependencies = ["beside"]\n' + sources)
        self.member("beside", "beside")
        self.assertIn(LocalProject(path="beside", is_editable=False), self.requirements().projects)

    def test_a_folder_outside_of_the_commit_is_none(self):
        outside = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, outside)
        (outside / "pyproject.toml").write_text('[project]\nname = "lib"\n')
        (self.checkout / "link").symlink_to(outside)
        for path in (f"../{outside.name}", str(outside), "link", "nowhere", "a\\u0000b"):
            with self.subTest(path):
                self.write(pyproject_toml=self.ROOT.replace("libs/lib", path))
                self.assertNotIn("lib", str(self.requirements().projects))
                self.assertRegex(self.decide().explanation, "sources in pyproject.toml says: .*lib")

    def test_members_are_named_by_patterns_that_follow_no_link(self):
        self.member("deep/er/one", "inner-one")
        (self.checkout / "loop").symlink_to(self.checkout)
        (self.checkout / "root").symlink_to("/")
        shutil.rmtree(self.checkout / "packages")
        for pattern, folder in {
            "deep/**": "deep/er/one",
            "**/one": "deep/er/one",
            "./deep/er/o[m-o]e/": "deep/er/one",
            "loop/deep/er/*": None,
            "root/**": None,
            "deep**": None,
            "[": None,
            "": None,
            "deep/../deep/er/*": None,
        }.items():
            with self.subTest(pattern):
                self.write(pyproject_toml=self.ROOT.replace("packages/*", pattern))
                found = {project.path for project in self.requirements().projects}
                self.assertEqual({".", "libs/lib"} | ({folder} if folder else set()), found)

    def test_a_lock_counts_with_its_content_and_what_is_chosen_of_it(self):
        self.write(uv_lock="version = 1\n")
        lock = self.requirements().lock
        assert lock is not None
        self.assertEqual((), lock.words)
        # What comes from git is in the lock; which index something is from is the server's to say.
        self.assertRegex(
            self.decide().explanation, "versions as uv.lock has them; from the index, .* says: six$|six, old$"
        )
        self.write(uv_lock="version = 2\n")
        self.assertNotEqual(lock, self.requirements().lock)
        self.write(pyproject_toml=self.ROOT + '[dependency-groups]\ntest = ["pluggy"]\n')
        lock = self.requirements().lock
        self.assertEqual(("--group=test",), lock and lock.words)


class TestSetting(InstallCase):
    def test_false_and_an_empty_list_switch_it_off(self):
        self.write(setup_py="")
        self.assertEqual("nothing is installed: install = false", self.decide(False).explanation)
        self.assertIsNone(self.decide([]).requirements)

    def test_a_list_is_explained_by_itself(self):
        self.assertEqual(
            "installed: six pluggy>=1, as install says", self.decide(["six", "pluggy>=1"]).explanation
        )

    def test_requirements_files_are_read_with_all_that_they_name(self):
        self.write(
            req__all_txt="-r base.txt  # others\n\nsix \\\n  >= 1.0\n--constraint=limits.txt\n",
            req__base_txt='pluggy ; python_version > "3" # why\n-r all.txt\n--no-binary six\n',
            req__limits_txt="pluggy<2\n-r more.txt",
            req__more_txt="six<9",
        )
        found = self.requirements("-rreq/all.txt", "--pre")
        self.assertEqual(('pluggy ; python_version > "3"', "six   >= 1.0"), found.lines)
        self.assertEqual(("pluggy<2", "six<9"), found.constraints)
        self.assertEqual(("--no-binary=six", "--pre"), found.options)
        self.assertEqual(
            ("req/all.txt", "req/base.txt", "req/limits.txt", "req/more.txt"), tuple(sorted(found.files))
        )

    def test_folders_of_the_commit_are_projects(self):
        self.write(setup_py="", tools__setup_py="", req_txt="-e ./tools[a, b] ; python_version > '3'\n")
        found = self.requirements(".[x]", "-e", ".", "-r", "req.txt")
        self.assertEqual(
            (
                LocalProject(path=".", extras=("x",), is_editable=False),
                LocalProject(path="."),
                LocalProject(path="tools", extras=("a", "b"), marker="python_version > '3'"),
            ),
            found.projects,
        )

    def test_more_folders_than_anybody_needs_are_refused(self):
        names = [f"./part{number}" for number in range(21)]
        for name in names:
            (self.checkout / name).mkdir()
        self.assertEqual(20, len(self.requirements(*names[:20]).projects))
        self.refused("install: more than 20 folders to install; name fewer", *names)

    def test_a_wheel_of_the_commit_is_taken(self):
        name = "vendor/a-1-py3-none-any.whl"
        self.add(name, "")
        self.assertEqual((name,), self.requirements(f"./{name}").wheels)

    def test_urls_and_names_are_no_paths(self):
        lines = (
            "git+https://example.org/a.git",
            "a @ https://example.org/a.whl",
            "a[b]>=1 ; os_name == 'x'",
        )
        self.assertEqual(lines, self.requirements(*lines).lines)

    def test_dependencies_and_groups_of_a_pyproject_can_be_named(self):
        extras = '[project.optional-dependencies]\ndoc = ["pluggy"]\n'
        self.write(pyproject_toml=PROJECT + extras + '[dependency-groups]\nlint = ["six"]\n')
        found = self.requirements("-r", "pyproject.toml", "--extra", "doc", "--group", "lint")
        self.assertEqual(("click", "pluggy", "six"), found.lines)

    def test_options_that_say_where_to_write_or_what_to_run_are_refused(self):
        for option in ("--target", "--prefix", "--python", "--system", "--cache-dir", "--config-file", "-C"):
            with self.subTest(option):
                self.refused(
                    f"install: option {option!r} is none that a commit may give; leave it out", f"{option}=x"
                )
        self.add("req.txt", "six\n--target=/\n")
        self.refused(
            "req.txt:2: option '--target' is none that a commit may give; leave it out", "-r", "req.txt"
        )

    def test_an_argument_of_several_lines_is_refused(self):
        for argument in ("six\n-r other.txt", "six\r--index-url=x", "six\0", "-e .[x]\n-r other.txt"):
            with self.subTest(argument):
                self.refused(f"install: {argument!r} is more than one line; give each by itself", argument)

    def test_an_option_without_its_value_is_refused(self):
        self.refused("install: option '--index-url' needs a value", "--index-url")
        self.refused("install: option '--pre' takes no value", "--pre=yes")

    def test_files_that_are_not_in_the_commit_are_refused(self):
        (self.checkout / "link.txt").symlink_to("/etc/hostname")
        os.mkfifo(self.checkout / "pipe.txt")
        for name, said in (
            ("none.txt", "cannot be read: No such file or directory; commit it"),
            ("link.txt", "leads out of the checkout"),
            ("pipe.txt", "is no plain file"),
            ("../x.txt", "is no path in the checkout"),
            ("/etc/hosts", "is no path in the checkout"),
            ("https://example.org/x.txt", "is no path in the checkout"),
        ):
            with self.subTest(name), self.assertRaisesRegex(ProjectError, said):
                self.decide(["-r", name])
        with self.assertRaisesRegex(ProjectError, "'nowhere' is neither a folder nor a wheel of the commit"):
            self.decide(["./nowhere"])


if __name__ == "__main__":
    unittest.main()
