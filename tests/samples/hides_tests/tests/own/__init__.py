def load_tests(loader, tests, pattern):
    from tests.own import test_loaded_by_hand

    return loader.loadTestsFromModule(test_loaded_by_hand)
