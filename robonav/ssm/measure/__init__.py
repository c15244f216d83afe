"""What ``robonav bench ssm`` and ``robonav bench memory`` measure."""
