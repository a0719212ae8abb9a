"""tests/drill/plan.py: what the seed decides."""

from __future__ import annotations

import unittest
from collections import Counter

from tests.drill.plan import Plan, make_plan

KINDS = {
    "repository": ["git gc", "git gc that prunes at once"],
    "damage": ["object damaged", "pack damaged", "repository away"],
    "update": ["ciapp updated"],
}


class TestPlan(unittest.TestCase):
    def make(self, commits: int = 60, faults: float = 1.0, seed: int = 3) -> Plan:
        return make_plan(seed, commits, 3, KINDS, faults)

    def count(self, plan: Plan) -> Counter[str]:
        return Counter(fault.kind for lane in plan.lanes.values() for fault in lane)

    def test_a_seed_plans_the_same_each_time(self) -> None:
        self.assertEqual(self.make(), self.make())
        self.assertNotEqual(self.make(), self.make(seed=4))

    def test_a_short_drill_has_each_fault_once(self) -> None:
        found = self.count(self.make(10))
        self.assertEqual(dict.fromkeys((kind for lane in KINDS.values() for kind in lane), 1), found)

    def test_a_long_one_has_each_kind_as_often_as_the_others_of_its_lane(self) -> None:
        found = self.count(self.make(900))
        self.assertEqual([20, 20, 20], [found[kind] for kind in KINDS["damage"]])

    def test_ciapp_is_updated_once_however_long_it_goes_on(self) -> None:
        self.assertEqual(1, self.count(self.make(1000))["ciapp updated"])

    def test_without_faults_nothing_strikes(self) -> None:
        self.assertEqual({}, self.count(self.make(faults=0.0)))

    def test_a_lane_more_changes_neither_the_pushes_nor_the_faults_of_those_before(self) -> None:
        plan = make_plan(3, 60, 3, {"repository": KINDS["repository"]}, 1.0)
        self.assertEqual(plan.pushes, self.make().pushes)
        self.assertEqual(plan.lanes["repository"], self.make().lanes["repository"])


if __name__ == "__main__":
    unittest.main()
