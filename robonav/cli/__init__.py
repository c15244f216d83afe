"""The command line, the one place of robonav that looks upward to sim, policies and deploy: inside functions only."""
