from stored_results import store as store
