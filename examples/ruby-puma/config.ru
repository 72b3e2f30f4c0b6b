require_relative 'leave'
use Leave

BODY = "g#{ENV['ENTRYPOINT_GENERATION']} served\n"
run ->(_env) { [200, { 'content-length' => BODY.bytesize.to_s }, [BODY]] }
