"""One file per kind of store; `wiring.py` alone knows them by name, and every one passes
tests/test_store_contract.py."""
