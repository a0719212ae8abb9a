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
