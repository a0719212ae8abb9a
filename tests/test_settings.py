"""Settings: where they come from, and the sentence for each way they can be wrong."""

from __future__ import annotations

import os
import tempfile
import unittest
from pathlib import Path

import msgspec

from ciapp.errors import SettingsError
from ciapp.settings import Limits, RetentionSettings, Settings, load_settings, variable_names

CONFIG = Path(__file__).parent.parent / "config" / "ciapp.toml"


class TestSettings(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name) / "ciapp.toml"

    def load(self, text: str, **environ: str) -> Settings:
        self.file.write_text(text)
        return load_settings(self.file, environ)

    def refused(self, text: str, sentence: str, **environ: str) -> None:
        with self.assertRaises(SettingsError) as caught:
            self.load(text, **environ)
        self.assertEqual(sentence.replace("FILE", str(self.file)), str(caught.exception))

    def test_an_unknown_setting_is_named_with_the_one_that_was_meant(self):
        self.refused("lease = 3", "FILE: unknown setting 'lease'; did you mean 'lease_s'?")
        self.refused("[limits]\nrun = 3", "FILE: unknown setting 'limits.run'; did you mean 'run_s'?")

    def test_a_value_of_the_wrong_type_is_named(self):
        self.refused("lease_s = 'x'", "FILE: setting 'lease_s': expected `float`, got `str`; correct it")

    def test_broken_toml_is_said_with_its_line(self):
        self.refused(
            "a = [\nb", "FILE is not valid TOML: Invalid value (at line 2, column 1); correct it there"
        )

    def test_numbers_out_of_bounds_are_refused(self):
        self.refused("attempts = 0", "FILE: setting 'attempts' is 0; give a number above 0")
        self.refused("[limits]\nrun_s = -1", "FILE: setting 'limits.run_s' is -1.0; give a number above 0")

    def test_numbers_that_no_clock_or_kernel_can_take_are_refused(self):
        above = "give a number above 0"
        for text, said in {
            "lease_s = nan": f"'lease_s' is nan; {above}",
            "lease_s = inf": "'lease_s' is inf; give at most 1000000",
            "[limits]\ntest_s = nan": f"'limits.test_s' is nan; {above}",
            "[limits]\nmemory_mib = 1000000000000": "'limits.memory_mib' is 1000000000000; "
            "give at most 1000000000",
            "[install]\ntimeout_s = inf": "'install.timeout_s' is inf; give at most 1000000",
            "[retention]\nkeep_days = 10000000": "'retention.keep_days' is 10000000; give at most 100000",
            "monitor_port = 99999999": "'monitor_port' is 99999999; give at most 65535",
            "monitor_port = -1": "'monitor_port' is -1; give 0 or more",
        }.items():
            with self.subTest(text):
                self.refused(text, f"FILE: setting {said}")

    def test_urls_that_no_library_can_read_are_refused_without_their_password(self):
        port = "has a port that is no number from 1 to 65535; correct it, and write"
        escaped = "write special characters of a password as %XX"
        for text, said in {
            "database_url = 'postgresql://u:secret@h:port/x'": f"'database_url' {port}",
            "database_url = 'postgresql://u:secret@h:99999/x'": f"'database_url' {port}",
            "broker_url = 'amqp://h:port/x'": f"'broker_url' {port}",
            "broker_url = 'amqp://u:sec/ret@h/x'": f"'broker_url' {port}",
            "broker_url = 'sentinel://a:1;sentinel://b:c'": f"'broker_url' {port}",
            "broker_url = 'amqp://u:sec[ret@h/x'": "'broker_url' is no URL; write",
        }.items():
            with self.subTest(text):
                self.refused(text, f"FILE: setting {said.removesuffix('write')}{escaped}")
        for url in ("redis://[::1]:6379/0", "amqp://u:a:b@h:5672//", "sentinel://a:1;sentinel://b:2"):
            self.assertEqual(url, self.load(f"broker_url = '{url}'").broker_url)
        self.load("database_url = 'sqlite:////srv/a:b/ledger'")

    def test_what_is_said_of_a_repository_names_it(self):
        for text, said in {
            "[repository.team]\nclone_ur = ''": "unknown setting 'repository.team.clone_ur'; "
            "did you mean 'clone_url'?",
            "[repository.a]\n[repository.team]\nnetwork = 1": "setting 'repository.team.network': "
            "expected `bool`, got `int`; correct it",
            "[repository.team.refs]\n'refs/tags/*' = 'off'\n'refs/heads/*' = 'all'": "setting "
            "'repository.team.refs.\"refs/heads/*\"': 'all' is none of each, tip, off; correct it",
            "[repository.'bad name']": "setting 'repository' has 'bad name', which can be no repository's "
            "name; give the name that it has in ciapp: letters, digits, '.', '_' and '-'",
            "[repository.team.project]\ninstal = false": "[repository.team.project]: "
            "unknown setting 'instal'; did you mean 'install'?",
            "[repository.team.project]\npython = ['3.7']": "[repository.team.project]: "
            "python has 3.7; the oldest that is supported is 3.8",
            "[repository.team.project.limits]\nrun_s = 5000": "[repository.team.project]: "
            "limits.run_s is 5000.0; give more than 0 and at most 1800.0",
        }.items():
            with self.subTest(text):
                self.refused(text, f"FILE: {said}")

    def test_a_choice_that_there_is_not_is_said_with_those_that_there_are(self):
        said = "'maybe' is none of auto, required, off, off-as-root; correct it"
        self.refused("sandbox = 'maybe'", f"FILE: setting 'sandbox': {said}")
        self.refused("", f"$CIAPP_SANDBOX is 'maybe': {said}", CIAPP_SANDBOX="maybe")

    def test_what_is_kept_may_be_nothing_said_and_never_less(self):
        self.assertEqual(90, self.load("[retention]\nkeep_days = 90").retention.keep_days)
        self.assertEqual(7, self.load("", CIAPP_RETENTION_MAX_MIB="7").retention.max_mib)
        self.refused(
            "[retention]\nkeep_runs = -1", "FILE: setting 'retention.keep_runs' is -1; give 0 or more"
        )

    def test_pythons_are_versions_paths_and_auto(self):
        self.assertEqual(["auto"], self.load("").pythons)
        self.assertEqual(["3.13", "/opt/python"], self.load('pythons = ["3.13", "/opt/python"]').pythons)
        self.assertEqual(["auto", "3.9"], self.load("", CIAPP_PYTHONS="auto 3.9").pythons)
        for bad in ("3", "3.13.0", "python3.13", "./python"):
            self.refused(
                f"pythons = ['{bad}']",
                f"""FILE: setting 'pythons' has '{bad}'; give "auto", versions as "3.13", """
                "and absolute paths of Python programs",
            )

    def test_a_variable_wins_over_the_file(self):
        settings = self.load("lease_s = 5", CIAPP_LEASE_S="7", CIAPP_LIMITS_RUN_S="9")
        self.assertEqual((7.0, 9.0), (settings.lease_s, settings.limits.run_s))

    def test_a_variable_that_names_no_setting_or_no_number_is_refused(self):
        self.refused("", "$CIAPP_LEASE names no setting; did you mean CIAPP_LEASE_S?", CIAPP_LEASE="7")
        self.refused(
            "", "$CIAPP_LEASE_S is 'soon': expected `float`, got `str`; correct it", CIAPP_LEASE_S="soon"
        )

    def test_only_a_name_that_is_near_is_suggested(self):
        self.refused(
            "", "$CIAPP_FOO names no setting; unset it, or see the README for the list", CIAPP_FOO="1"
        )

    def test_a_folder_is_no_settings_file(self):
        folder = self.file.parent
        with self.assertRaises(SettingsError) as caught:
            load_settings(folder, {})
        sentence = f"settings file {folder} is a folder; give a file in --config or $CIAPP_CONFIG"
        self.assertEqual(sentence, str(caught.exception))

    def test_a_file_that_is_asked_for_and_missing_is_refused(self):
        with self.assertRaisesRegex(SettingsError, "does not exist; check --config and"):
            load_settings(None, {"CIAPP_CONFIG": str(self.file)})

    def test_the_first_pattern_that_matches_a_ref_decides(self):
        settings = self.load('[repository.team.refs]\n"refs/heads/wip/*" = "off"\n"refs/heads/big/*" = "tip"')
        policies = [
            settings.ref_policy("team", ref)
            for ref in (
                "refs/heads/wip/a",
                "refs/heads/big/b",
                "refs/heads/main",
                "refs/tags/v1",
                "refs/notes/x",
            )
        ]
        self.assertEqual(["off", "tip", "each", "each", "off"], policies)

    def test_a_pattern_that_is_a_default_as_well_means_what_the_file_says(self):
        settings = self.load('[repository.team.refs]\n"refs/heads/*" = "tip"')
        self.assertEqual("tip", settings.ref_policy("team", "refs/heads/main"))
        self.assertEqual("each", settings.ref_policy("team", "refs/tags/v1"))

    def test_state_and_database_follow_the_state_folder(self):
        settings = self.load('state_dir = "/srv/ci"')
        self.assertEqual(Path("/srv/ci"), settings.state_path)
        self.assertEqual("sqlite:////srv/ci/ledger.sqlite3", settings.database)

    def test_a_postgresql_url_gets_its_driver(self):
        settings = self.load('database_url = "postgresql://ci@db/ci"')
        self.assertEqual("postgresql+psycopg://ci@db/ci", settings.database)

    def test_the_commented_settings_file_shows_every_setting_with_its_default(self):
        settings = load_settings(CONFIG, {})
        self.assertEqual(Settings(), settings)
        text = CONFIG.read_text()
        for kind in (Settings, Limits, RetentionSettings):
            for field in msgspec.structs.fields(kind):
                self.assertIn(f"{field.name}", text)

    def test_every_setting_has_a_variable(self):
        names = variable_names()
        self.assertEqual(("limits", "run_s"), names["CIAPP_LIMITS_RUN_S"])
        environ = {"CIAPP_STATE_DIR": "/x", "CIAPP_BROKER_URL": "redis://h", "CIAPP_CONCURRENCY": "3"}
        settings = self.load("", **environ)
        self.assertEqual(
            ("/x", "redis://h", 3), (settings.state_dir, settings.broker_url, settings.concurrency)
        )
        self.assertNotIn("CIAPP_REPOSITORY", names)


class TestDefaults(unittest.TestCase):
    def test_an_ordinary_user_keeps_state_by_the_xdg_rules(self):
        if os.geteuid() == 0:
            self.assertEqual(Path("/var/lib/ciapp"), Settings().state_path)
        else:
            self.assertTrue(Settings().state_path.name == "ciapp")


if __name__ == "__main__":
    unittest.main()
