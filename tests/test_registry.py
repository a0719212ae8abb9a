"""How uv is told to reach the registry, and others are not."""

from __future__ import annotations

import tomllib
import unittest

from ciapp.settings import InstallSettings
from ciapp.testing.registry import (
    index_variables,
    registry_variables,
    split_credentials,
    without_credentials,
)

INDEX = "https://index.example.org/simple"


class TestRegistry(unittest.TestCase):
    def test_settings_go_before_the_workers_variables(self):
        environ = {
            "UV_DEFAULT_INDEX": "https://other",
            "https_proxy": "http://proxy",
            "HOME": "/x",
            "PATH": "",
        }
        self.assertEqual(
            {"UV_DEFAULT_INDEX": "https://other", "HTTPS_PROXY": "http://proxy"},
            registry_variables(InstallSettings(), environ),
        )
        install = InstallSettings(index_url=INDEX, extra_index_urls="https://a https://b")
        self.assertEqual(
            {"UV_DEFAULT_INDEX": INDEX, "UV_INDEX": "https://a https://b", "HTTPS_PROXY": "http://proxy"},
            registry_variables(install, environ),
        )

    def test_how_an_index_is_reached_does_not_tell_which_it_is(self):
        environ = {"HTTPS_PROXY": "http://ann:secret@proxy", "UV_INDEX": "https://ann:secret@a.example"}
        self.assertEqual({"UV_INDEX": "https://a.example"}, index_variables(InstallSettings(), environ))

    def test_credentials_are_taken_out_of_every_url(self):
        for given, left in (
            ("https://ann:secret@a.example/simple", "https://a.example/simple"),
            (
                "one=https://ann:secret@a.example/x two=https://token@b.example/y",
                "one=https://a.example/x two=https://b.example/y",
            ),
            ("ann:secret@proxy:3128", "proxy:3128"),
            ("https://a.example/@team/simple", "https://a.example/@team/simple"),
            ("https://a.example https://ann:s:e@b.example", "https://a.example https://b.example"),
        ):
            with self.subTest(given):
                self.assertEqual({"X": left}, without_credentials({"X": given}))

    def test_credentials_are_told_in_a_file_and_the_rest_in_variables(self):
        text, rest = split_credentials(
            {
                "UV_INDEX": "one=https://ann:s@a.example/x?y=z https://b.example",
                "UV_DEFAULT_INDEX": 'https://ann:"s@c.example',
                "ALL_PROXY": "http://ann:secret@proxy:3128",
                "HTTP_PROXY": "http://proxy",
                "NO_PROXY": "d.example, .e.example",
            }
        )
        self.assertEqual({"HTTP_PROXY": "http://proxy", "NO_PROXY": "d.example, .e.example"}, rest)
        self.assertEqual(
            {
                "https-proxy": "http://ann:secret@proxy:3128",
                "no-proxy": ["d.example", ".e.example"],
                "index": [
                    {"name": "one", "url": "https://ann:s@a.example/x?y=z"},
                    {"url": "https://b.example"},
                    {"url": 'https://ann:"s@c.example', "default": True},
                ],
            },
            tomllib.loads(text),
        )
        self.assertEqual(
            ("", {"HTTPS_PROXY": "proxy:3128"}), split_credentials({"HTTPS_PROXY": "proxy:3128"})
        )


if __name__ == "__main__":
    unittest.main()
