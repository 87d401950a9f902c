"""What is masked of photographs without a mask that says so: found in their pixels."""
