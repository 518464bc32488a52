"""The speeds that README and the lessons promise, measured beside the same things done by others in the same run."""
