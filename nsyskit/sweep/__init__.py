"""Many runs of llama-bench: the cross product of settings, resumable, failures recorded and skipped."""
